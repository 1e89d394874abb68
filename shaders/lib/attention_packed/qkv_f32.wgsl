// Queries, keys and values as floats.
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>; // qkv[M, 3 * HEADS * HEAD_DIM]

fn qkv_at(i: u32) -> vec4<f32> {
    return qkv[i];
}
