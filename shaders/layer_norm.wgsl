// layer_norm(row) * weight + bias; LANES invocations hold a row in registers between the sums.

struct Params {
    rows: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> weight: array<vec4<f32>>; // weight[K]
@group(0) @binding(1) var<storage, read> bias: array<vec4<f32>>; // bias[K]
@group(0) @binding(15) var<uniform> params: Params;

const VECTORS = K / 4u;
const HELD = (VECTORS + LANES - 1u) / LANES;

// row_at(row, at): what is normalised; put(index, value): where it goes.
#import row
// row_of(workgroup, index): an invocation's row; total(value, lane): the sum over the invocations of a row.
#import total

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let row = row_of(group.x + group.y * groups.x, index);
    let lane = index % LANES;
    if row >= params.rows {
        return;
    }
    var held: array<vec4<f32>, HELD>;
    var sum = 0.0;
    for (var i = 0u; i < HELD; i++) {
        let at = lane + i * LANES;
        if VECTORS % LANES == 0u || at < VECTORS {
            held[i] = row_at(row, at);
            sum += dot(held[i], vec4<f32>(1.0));
        }
    }
    let mean = total(sum, lane) / f32(K);
    var squares = 0.0;
    for (var i = 0u; i < HELD; i++) {
        if VECTORS % LANES == 0u || lane + i * LANES < VECTORS {
            held[i] -= mean;
            squares += dot(held[i], held[i]);
        }
    }
    let scale = inverseSqrt(total(squares, lane) / f32(K) + params.eps);
    for (var i = 0u; i < HELD; i++) {
        let at = lane + i * LANES;
        if VECTORS % LANES == 0u || at < VECTORS {
            put(row * VECTORS + at, held[i] * scale * weight[at] + bias[at]);
        }
    }
}
