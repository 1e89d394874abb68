// Results as floats.

@group(0) @binding(OUTPUT) var<storage, read_write> out: array<vec4<f32>>; // out[M, N / 4]

fn put_vector(index: u32, value: vec4<f32>) {
    out[index] = value;
}

fn put_block(index: u32, values: array<vec4<f32>, 8>) {
    for (var i = 0u; i < 8u; i++) {
        out[8u * index + i] = values[i];
    }
}

#ifdef SPREAD
// Element e of a block, held by one of 32 neighbours; `counts` says whether the block is to be written.
fn put_spread(index: u32, e: u32, value: f32, counts: bool) {
    if counts {
        out[8u * index + e / 4u][e % 4u] = value;
    }
}
#endif
