// Queries, keys and values as halves.
#import half

@group(0) @binding(1) var<storage, read> qkv: array<vec2<u32>>; // qkv[M, 3 * HEADS * HEAD_DIM]

fn qkv_at(i: u32) -> vec4<f32> {
    return half_unpack4(qkv[i]);
}
