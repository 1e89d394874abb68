// y = x: what a device's memory gives at most.

struct Params {
    count: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // x[N / 4]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>; // y[N / 4]
@group(0) @binding(15) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let stride = groups.x * groups.y * WORKGROUP;
    for (var i = id.x + id.y * groups.x * WORKGROUP; i < params.count; i += stride) {
        y[i] = x[i];
    }
}
