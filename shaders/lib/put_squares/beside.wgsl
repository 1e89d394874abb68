// Sums of squares of blocks, in a buffer of their own.

@group(0) @binding(OUTPUT + 1u) var<storage, read_write> squares: array<f32>; // squares[M, N / 32]

fn put_squares(index: u32, sum: f32) {
    squares[index] = sum;
}
