// y[m, offset + n] += bias[n].

struct Params {
    rows: u32,
    cols: u32,
    y_stride: u32,
    y_offset: u32,
}

@group(0) @binding(0) var<storage, read> bias: array<f32>; // bias[N]
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // y[M, y_stride]
@group(0) @binding(15) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.x + id.y * groups.x * WORKGROUP;
    let row = index / params.cols;
    let col = index % params.cols;
    if row < params.rows {
        y[row * params.y_stride + params.y_offset + col] += bias[col];
    }
}
