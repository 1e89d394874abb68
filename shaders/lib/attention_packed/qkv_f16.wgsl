// Queries, keys and values as halves.
#ifdef COOP_MATRIX
#import attention/raw_f16

@group(0) @binding(1) var<storage, read> qkv: array<vec4<u32>>; // qkv[M, 3 * HEADS * HEAD_DIM / 8]

fn raw_at(i: u32) -> Raw {
    return qkv[i];
}
#else
#import half

@group(0) @binding(1) var<storage, read> qkv: array<vec2<u32>>; // qkv[M, 3 * HEADS * HEAD_DIM / 4]

fn qkv_at(i: u32) -> vec4<f32> {
    return half_unpack4(qkv[i]);
}
#endif
