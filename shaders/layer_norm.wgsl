// x = layer_norm(x + add) * weight + bias, in place, one workgroup a row; where asked for the same as halves beside it. A
// row stays in registers between the sums.
#import reduce

struct Params {
    rows: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> add: array<vec4<f32>>; // add[P, K]
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>; // rows[M] = (token, position, start, end)
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>; // weight[K]
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>; // bias[K]
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>; // x[M, K]
@group(0) @binding(15) var<uniform> params: Params;

const OUTPUT: u32 = 5u;
#import output

const VECTORS = K / 4u;
const HELD = (VECTORS + WORKGROUP - 1u) / WORKGROUP;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.x + group.y * groups.x;
    if row >= params.rows {
        return;
    }
    var added = 0u;
    if BY_POSITION {
        added = rows[row].y * VECTORS;
    }
    var held: array<vec4<f32>, HELD>;
    var sum = 0.0;
    for (var i = 0u; i < HELD; i++) {
        let at = lane + i * WORKGROUP;
        if VECTORS % WORKGROUP == 0u || at < VECTORS {
            held[i] = x[row * VECTORS + at] + add[added + at];
            sum += dot(held[i], vec4<f32>(1.0));
        }
    }
    let mean = reduce_sum(sum, lane) / f32(K);
    var squares = 0.0;
    for (var i = 0u; i < HELD; i++) {
        if VECTORS % WORKGROUP == 0u || lane + i * WORKGROUP < VECTORS {
            held[i] -= mean;
            squares += dot(held[i], held[i]);
        }
    }
    let scale = inverseSqrt(reduce_sum(squares, lane) / f32(K) + params.eps);
    for (var i = 0u; i < HELD; i++) {
        let at = lane + i * WORKGROUP;
        if VECTORS % WORKGROUP == 0u || at < VECTORS {
            let value = held[i] * scale * weight[at] + bias[at];
            x[row * VECTORS + at] = value;
            put_vector(row * VECTORS + at, value);
        }
    }
}
