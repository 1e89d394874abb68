// y[i] = w[ids[i]]: rows of a table, dequantised. A table split by rows answers only for the rows it holds.
#import weights

struct Params {
    rows: u32,
    id_stride: u32, // words from one id to the next
    first: u32, // the table's first row that w holds
    count: u32, // rows that w holds
}

@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>; // w[count, K] packed
@group(0) @binding(1) var<storage, read> ids: array<u32>; // ids[M, id_stride]
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>; // y[M, COLS / 4]
@group(0) @binding(15) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.x + id.y * groups.x * WORKGROUP;
    let row = index / (K / 32u);
    let block = index % (K / 32u);
    if row >= params.rows {
        return;
    }
    let from_row = ids[row * params.id_stride] - params.first;
    // Below the first row the difference wraps to a large number.
    if from_row >= params.count {
        return;
    }
    let values = weights_block(from_row * ROW_VEC4, block);
    for (var i = 0u; i < 8u; i++) {
        let at = 8u * block + i;
        if at < COLS / 4u {
            y[row * (COLS / 4u) + at] = values[i];
        }
    }
}
