// y = x / sqrt(mean(x²) + eps) * weight, one workgroup a row.
#import reduce

struct Params {
    rows: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>; // x[M, K]
@group(0) @binding(1) var<storage, read> weight: array<f32>; // weight[K]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // y[M, K]
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.x + group.y * groups.x;
    if row >= params.rows {
        return;
    }
    var sum = 0.0;
    for (var i = lane; i < K; i += WORKGROUP) {
        let v = x[row * K + i];
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(sum, lane) / f32(K) + params.eps);
    for (var i = lane; i < K; i += WORKGROUP) {
        y[row * K + i] = x[row * K + i] * scale * weight[i];
    }
}
