// Rows of w in order; past the last one they repeat it.
fn row_of(n0: u32, r: u32) -> u32 {
    if WHOLE {
        return n0 + r;
    }
    return min(n0 + r, params.n - 1u);
}
