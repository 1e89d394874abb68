// y = x / sqrt(mean(x²) + eps) * weight, one workgroup a row; y as floats, or as bytes for integer dot products.
#import reduce

struct Params {
    rows: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // x[M, K / 4]
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>; // weight[K / 4]
@group(0) @binding(15) var<uniform> params: Params;

const OUTPUT: u32 = 2u;
#import output

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.x + group.y * groups.x;
    if row >= params.rows {
        return;
    }
    let start = row * (K / 4u);
    var sum = 0.0;
    for (var turn = 0u; turn < (K / 4u + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let i = turn * WORKGROUP + lane;
        if (K / 4u) % WORKGROUP != 0u && i >= K / 4u {
            break;
        }
        let v = x[start + i];
        sum += dot(v, v);
    }
    let scale = inverseSqrt(reduce_sum(sum, lane) / f32(K) + params.eps);
#ifdef DOT4
    for (var turn = 0u; turn < (K / 32u + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let block = turn * WORKGROUP + lane;
        if (K / 32u) % WORKGROUP != 0u && block >= K / 32u {
            break;
        }
        var values: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            values[i] = x[start + 8u * block + i] * scale * weight[8u * block + i];
        }
        put_block(row * (K / 32u) + block, values);
    }
#else
    for (var turn = 0u; turn < (K / 4u + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let i = turn * WORKGROUP + lane;
        if (K / 4u) % WORKGROUP != 0u && i >= K / 4u {
            break;
        }
        put_vector(start + i, x[start + i] * scale * weight[i]);
    }
#endif
}
