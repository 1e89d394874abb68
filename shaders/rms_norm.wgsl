// y = x / sqrt(mean(x²) + eps) * weight, one workgroup a row; y as floats, or as bytes for integer dot products.
#import reduce

struct Params {
    rows: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>; // x[M, K]
@group(0) @binding(1) var<storage, read> weight: array<f32>; // weight[K]
#ifdef DOT4
#import q8
@group(0) @binding(2) var<storage, read_write> q: array<u32>; // q[M, K / 4]
@group(0) @binding(3) var<storage, read_write> s: array<vec2<f32>>; // s[M, K / 32]
#else
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // y[M, K]
#endif
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.x + group.y * groups.x;
    if row >= params.rows {
        return;
    }
    let start = row * K;
    var sum = 0.0;
    for (var i = lane; i < K; i += WORKGROUP) {
        let v = x[start + i];
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(sum, lane) / f32(K) + params.eps);
#ifdef DOT4
    for (var block = lane; block < K / 32u; block += WORKGROUP) {
        var values: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            let at = 32u * block + 4u * i;
            let from_x = vec4<f32>(x[start + at], x[start + at + 1u], x[start + at + 2u], x[start + at + 3u]);
            values[i] = from_x * scale * vec4<f32>(weight[at], weight[at + 1u], weight[at + 2u], weight[at + 3u]);
        }
        let packed = q8_pack(values);
        let index = row * (K / 32u) + block;
        for (var i = 0u; i < 8u; i++) {
            q[8u * index + i] = packed.q[i];
        }
        s[index] = vec2<f32>(packed.scale, packed.sum);
    }
#else
    for (var i = lane; i < K; i += WORKGROUP) {
        y[start + i] = x[start + i] * scale * weight[i];
    }
#endif
}
