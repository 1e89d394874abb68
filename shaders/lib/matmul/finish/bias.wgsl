// A bias is added.
@group(0) @binding(2) var<storage, read> bias: array<f32>; // bias[y_stride]
const OUTPUT: u32 = 3u;

#import matmul/finish/rows

#import matmul/begin_bias

const FINISHES = false;

fn finish(n: u32, sum: f32) -> f32 {
    return with_bias(n, sum);
}
