// The rows of chosen groups as candidates, their keys from products in f32: one workgroup a row, the second dimension is the query.
// Rows of groups of other parts of the index are left as they are.
#import weights
#import reduce
#import top_k/key

struct Params {
    rows: u32, // of w
    first_group: u32, // that w begins with
    count: u32, // groups of a query
}

@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>; // w[N, K] packed
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // x[Q, K / 4]
@group(0) @binding(2) var<storage, read> removed: array<u32>; // removed[N / 32], a bit a row
@group(0) @binding(3) var<storage, read> chosen: array<vec2<u32>>; // chosen[Q, count] = (key, group)
@group(0) @binding(4) var<storage, read_write> y: array<vec2<u32>>; // y[Q, count, 32] = (key, row)
@group(0) @binding(15) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let pair = chosen[group.y * params.count + group.x / GROUP];
    // A group of no part wraps to a large number or lies behind, as those of other parts do.
    let own = pair.y - params.first_group;
    let row = own * GROUP + group.x % GROUP;
    let is_here = pair.x != 0u && own <= (params.rows - 1u) / GROUP;
    if pair.x != 0u && !is_here {
        return;
    }
    let at = group.y * params.count * GROUP + group.x;
    if !is_here || row >= params.rows || ((removed[own] >> (row % GROUP)) & 1u) != 0u {
        if lane == 0u {
            y[at] = NONE;
        }
        return;
    }
    var sum = 0.0;
    for (var turn = 0u; turn < (K / 32u + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let block = turn * WORKGROUP + lane;
        if (K / 32u) % WORKGROUP != 0u && block >= K / 32u {
            break;
        }
        let weights = weights_block(row * ROW_VEC4, block);
        for (var i = 0u; i < 8u; i++) {
            sum += dot(weights[i], x[group.y * (K / 4u) + 8u * block + i]);
        }
    }
    let total = reduce_sum(sum, lane);
    if lane == 0u {
        y[at] = vec2<u32>(key_of(total), params.first_group * GROUP + row);
    }
}
