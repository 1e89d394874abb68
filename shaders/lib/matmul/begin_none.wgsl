#ifdef COOP_MATRIX
// Sums begin with 0.
const BEGINS = false;

fn begin(n: u32) -> f32 {
    return 0.0;
}
#endif
