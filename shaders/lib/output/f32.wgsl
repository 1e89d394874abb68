// Results as floats.

#ifdef SPREAD
// One by one: neighbours put them side by side, and must not write into one vector.
@group(0) @binding(OUTPUT) var<storage, read_write> out: array<f32>; // out[M, N]

fn put_vector(index: u32, value: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        out[4u * index + i] = value[i];
    }
}
#else
@group(0) @binding(OUTPUT) var<storage, read_write> out: array<vec4<f32>>; // out[M, N / 4]

fn put_vector(index: u32, value: vec4<f32>) {
    out[index] = value;
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
    if counts {
        out[32u * index + e] = value;
    }
}
#endif
