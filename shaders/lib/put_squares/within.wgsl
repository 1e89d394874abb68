// Sums of squares of blocks, where output/q8 has room for them; to be put by the invocation that put element 0 of the block,
// behind it.

fn put_squares(index: u32, sum: f32) {
    put_word(2u * OUT_BLOCKS + index, 2u, bitcast<u32>(sum));
}
