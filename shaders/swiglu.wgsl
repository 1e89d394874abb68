// y = silu(gate) * up, the gate and up halves side by side in x; y as floats, or as bytes for integer dot products.

struct Params {
    rows: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // x[M, 2, K]
@group(0) @binding(15) var<uniform> params: Params;

const OUTPUT: u32 = 1u;
#import output

fn swiglu(row: u32, i: u32) -> vec4<f32> {
    let gate = x[row * (K / 2u) + i];
    return gate / (1.0 + exp(-gate)) * x[row * (K / 2u) + K / 4u + i];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.x + id.y * groups.x * WORKGROUP;
#ifdef DOT4
    let row = index / (K / 32u);
    let block = index % (K / 32u);
    if row >= params.rows {
        return;
    }
    var values: array<vec4<f32>, 8>;
    for (var i = 0u; i < 8u; i++) {
        values[i] = swiglu(row, 8u * block + i);
    }
    put_block(index, values);
#else
    let row = index / (K / 4u);
    let i = index % (K / 4u);
    if row >= params.rows {
        return;
    }
    put_vector(index, swiglu(row, i));
#endif
}
