// gelu(sum + bias) with gelu(x) = x Φ(x), Φ the normal distribution (Hendrycks and Gimpel 2016).
@group(0) @binding(2) var<storage, read> bias: array<f32>; // bias[y_stride]
const OUTPUT: u32 = 3u;

#import matmul/finish/rows

#import matmul/begin_bias

const FINISHES = true;

#ifdef HALVES
// Φ(u) as 1/2 + u P(u²) for u from -4.5 to 4.5: within 6e-5 of x Φ(x) there and 2e-5 below, above within 4.4e-6 of itself. In a third
// of the instructions of what follows.
fn finish(n: u32, sum: f32) -> f32 {
    let x = max(with_bias(n, sum), -4.5);
    let u = min(x, 4.5);
    let z = u * u;
    var p = z * 3.0000134e-11 - 3.283918e-9;
    p = p * z + 1.5802594e-7;
    p = p * z - 4.4316894e-6;
    p = p * z + 8.120977e-5;
    p = p * z - 0.0010362538;
    p = p * z + 0.009580655;
    p = p * z - 0.065977275;
    p = p * z + 0.39870858;
    return x * (u * p + 0.5);
}
#else
// erfc(x) for x >= 0, off by at most 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26).
fn erfc_positive(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * x);
    let polynomial = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)));
    return t * polynomial * exp(-x * x);
}

fn finish(n: u32, sum: f32) -> f32 {
    let x = with_bias(n, sum);
    let half_tail = 0.5 * erfc_positive(abs(x) * 0.7071067811865476);
    return x * select(half_tail, 1.0 - half_tail, x >= 0.0);
}
#endif
