// Queries, keys and values as floats.
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>; // qkv[M, 3 * HEADS * HEAD_DIM / 4]

#ifdef COOP_MATRIX
#import attention/raw_f32

fn raw_at(i: u32) -> Raw {
    return Raw(qkv[2u * i], qkv[2u * i + 1u]);
}
#else
fn qkv_at(i: u32) -> vec4<f32> {
    return qkv[i];
}
#endif
