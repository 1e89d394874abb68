// gelu(sum + bias) with gelu(x) = x Φ(x), Φ the normal distribution (Hendrycks and Gimpel 2016).
@group(0) @binding(2) var<storage, read> bias: array<f32>; // bias[y_stride]
const OUTPUT: u32 = 3u;

#import matmul/finish/rows

const FINISHES = true;

// erfc(x) for x >= 0, off by at most 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26).
fn erfc_positive(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * x);
    let polynomial = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)));
    return t * polynomial * exp(-x * x);
}

fn finish(n: u32, sum: f32) -> f32 {
    let x = sum + bias[n];
    let half_tail = 0.5 * erfc_positive(abs(x) * 0.7071067811865476);
    return x * select(half_tail, 1.0 - half_tail, x >= 0.0);
}
