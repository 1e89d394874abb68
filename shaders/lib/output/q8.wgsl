// Blocks of 32 results as bytes for integer dot products.
#import q8

@group(0) @binding(OUTPUT) var<storage, read_write> out_q: array<vec4<u32>>; // out_q[M, N / 16]
@group(0) @binding(OUTPUT + 1u) var<storage, read_write> out_s: array<vec2<f32>>; // out_s[M, N / 32]

fn put_block(index: u32, values: array<vec4<f32>, 8>) {
    let packed = q8_pack(values);
    out_q[2u * index] = vec4<u32>(packed.q[0], packed.q[1], packed.q[2], packed.q[3]);
    out_q[2u * index + 1u] = vec4<u32>(packed.q[4], packed.q[5], packed.q[6], packed.q[7]);
    out_s[index] = vec2<f32>(packed.scale, packed.sum);
}
