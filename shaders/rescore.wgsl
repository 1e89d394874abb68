// The keys of chosen rows anew, from products in f32: one workgroup a row, the second dimension is the query. Rows of other
// parts of the index keep theirs.
#import weights
#import reduce
#import top_k/key

struct Params {
    rows: u32, // of w
    first_id: u32, // of the first row
    count: u32, // pairs of a query
}

@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>; // w[N, K] packed
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // x[Q, K / 4]
@group(0) @binding(2) var<storage, read_write> pairs: array<vec2<u32>>; // pairs[Q, count] = (key, id)
@group(0) @binding(15) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = group.y * params.count + group.x;
    // What is no row of this part wraps to a large number or lies behind; its sum is thrown away.
    let row = pairs[at].y - params.first_id;
    let inside = min(row, params.rows - 1u);
    var sum = 0.0;
    for (var turn = 0u; turn < (K / 32u + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let block = turn * WORKGROUP + lane;
        if (K / 32u) % WORKGROUP != 0u && block >= K / 32u {
            break;
        }
        let weights = weights_block(inside * ROW_VEC4, block);
        for (var i = 0u; i < 8u; i++) {
            sum += dot(weights[i], x[group.y * (K / 4u) + 8u * block + i]);
        }
    }
    let total = reduce_sum(sum, lane);
    if lane == 0u && row < params.rows {
        pairs[at].x = key_of(total);
    }
}
