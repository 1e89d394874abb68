// A bias is added.
@group(0) @binding(2) var<storage, read> bias: array<f32>; // bias[y_stride]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // y[M, y_stride]

const FINISHES = true;

fn finish(n: u32, sum: f32) -> f32 {
    return sum + bias[n];
}
