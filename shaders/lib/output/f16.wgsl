// Results as halves, two to a word, which needs no f16 of the device; what a half cannot hold becomes the largest that it can.

#ifdef SPREAD
// In words: neighbours put them side by side, and must not write into one vector.
@group(0) @binding(OUTPUT) var<storage, read_write> out: array<u32>; // out[M, N / 2]

fn put_vector(index: u32, value: vec4<f32>) {
    let v = clamp(value, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    out[2u * index] = pack2x16float(v.xy);
    out[2u * index + 1u] = pack2x16float(v.zw);
}
#else
@group(0) @binding(OUTPUT) var<storage, read_write> out: array<vec2<u32>>; // out[M, N / 4]

fn put_vector(index: u32, value: vec4<f32>) {
    let v = clamp(value, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    out[index] = vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));
}
#endif

fn put_block(index: u32, values: array<vec4<f32>, 8>) {
    for (var i = 0u; i < 8u; i++) {
        put_vector(8u * index + i, values[i]);
    }
}

#ifdef SPREAD
// Element e of a block, held by one of 32 neighbours; `counts` says whether the block is to be written.
fn put_spread(index: u32, e: u32, value: f32, counts: bool) {
    let own = clamp(value, -65504.0, 65504.0);
    let next = subgroupShuffleXor(own, 1u);
    if counts && e % 2u == 0u {
        out[16u * index + e / 2u] = pack2x16float(vec2<f32>(own, next));
    }
}
#endif
