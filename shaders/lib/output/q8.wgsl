// Blocks of 32 results as bytes for integer dot products, OUT_BLOCKS of them.
#import q8

#ifdef SPREAD
// In words: neighbours put them side by side, and must not write into one vector.
@group(0) @binding(OUTPUT) var<storage, read_write> out: array<u32>; // out[3, M, N / 32, 4]: see q8

fn put_word(at: u32, i: u32, word: u32) {
    out[4u * at + i] = word;
}

fn put_words(at: u32, words: vec4<u32>) {
    for (var i = 0u; i < 4u; i++) {
        put_word(at, i, words[i]);
    }
}
#else
@group(0) @binding(OUTPUT) var<storage, read_write> out: array<vec4<u32>>; // out[3, M, N / 32]: see q8

fn put_word(at: u32, i: u32, word: u32) {
    out[at][i] = word;
}

fn put_words(at: u32, words: vec4<u32>) {
    out[at] = words;
}
#endif

fn put_block(index: u32, values: array<vec4<f32>, 8>) {
    let packed = q8_pack(values);
    put_words(index, vec4<u32>(packed.q[0], packed.q[1], packed.q[2], packed.q[3]));
    put_words(OUT_BLOCKS + index, vec4<u32>(packed.q[4], packed.q[5], packed.q[6], packed.q[7]));
    put_words(2u * OUT_BLOCKS + index, bitcast<vec4<u32>>(vec4<f32>(packed.scale, packed.sum, 0.0, 0.0)));
}

#ifdef SPREAD
#import spread

// Element e of a block, held by one of 32 neighbours; `counts` says whether the block is to be written.
fn put_spread(index: u32, e: u32, value: f32, counts: bool) {
    let scale = spread_max(abs(value)) / 127.0;
    var inverse = 0.0;
    if scale > 0.0 {
        inverse = 1.0 / scale;
    }
    let q = i32(round(value * inverse));
    let sum = spread_sum(f32(q)); // of at most 32 times 127: exact
    var word = (u32(q) & 255u) << (8u * (e % 4u));
    word |= subgroupShuffleXor(word, 1u);
    word |= subgroupShuffleXor(word, 2u);
    if counts && e % 4u == 0u {
        put_word(e / 16u * OUT_BLOCKS + index, e % 16u / 4u, word);
    }
    if counts && e == 0u {
        put_words(2u * OUT_BLOCKS + index, bitcast<vec4<u32>>(vec4<f32>(scale, scale * sum, 0.0, 0.0)));
    }
}
#endif
