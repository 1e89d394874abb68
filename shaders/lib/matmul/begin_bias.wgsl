#ifdef COOP_MATRIX
// Sums of matrices begin with the bias, whose loads wait for nothing then.
const BEGINS = true;

fn begin(n: u32) -> f32 {
    return bias[min(n, params.y_stride - 1u)];
}

fn with_bias(n: u32, sum: f32) -> f32 {
    return sum;
}
#else
fn with_bias(n: u32, sum: f32) -> f32 {
    return sum + bias[n];
}
#endif
