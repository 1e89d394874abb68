// Results as halves in tiles of 16 columns, which cooperative matrices load as they lie, of every four columns 0, 2, 1 and 3, as
// weights come; what a half cannot hold becomes the largest that it can. OUT_COLS columns, OUT_ROWS rows a tile.

#ifdef SPREAD
// In words: neighbours put them side by side, and must not write into one vector.
@group(0) @binding(OUTPUT) var<storage, read_write> out: array<u32>; // out[N / 16, OUT_ROWS, 8]

fn put_halves(at: u32, v: vec4<f32>) {
    out[2u * at] = pack2x16float(v.xz);
    out[2u * at + 1u] = pack2x16float(v.yw);
}
#else
@group(0) @binding(OUTPUT) var<storage, read_write> out: array<vec2<u32>>; // out[N / 16, OUT_ROWS, 4]

fn put_halves(at: u32, v: vec4<f32>) {
    out[at] = vec2<u32>(pack2x16float(v.xz), pack2x16float(v.yw));
}
#endif

// index counts vectors of [M, N / 4].
fn put_vector(index: u32, value: vec4<f32>) {
    let row = index / (OUT_COLS / 4u);
    let i = index % (OUT_COLS / 4u);
    put_halves((i / 4u * OUT_ROWS + row) * 4u + i % 4u, clamp(value, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}

fn put_block(index: u32, values: array<vec4<f32>, 8>) {
    for (var i = 0u; i < 8u; i++) {
        put_vector(8u * index + i, values[i]);
    }
}

#ifdef SPREAD
// Element e of a block, held by one of 32 neighbours; `counts` says whether the block is to be written.
fn put_spread(index: u32, e: u32, value: f32, counts: bool) {
    let own = clamp(value, -65504.0, 65504.0);
    let next = subgroupShuffleXor(own, 2u);
    if counts && e % 4u < 2u {
        let row = 8u * index / (OUT_COLS / 4u);
        let i = 8u * index % (OUT_COLS / 4u) + e / 4u;
        out[2u * ((i / 4u * OUT_ROWS + row) * 4u + i % 4u) + e % 4u] = pack2x16float(vec2<f32>(own, next));
    }
}
#endif
