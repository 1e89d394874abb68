// Where the input of a product was not yet divided by the root mean square of what it was made from, the sums of squares
// came along: SQUARES a row, none where the input is as it should be. Quantised input has them within it.

#ifdef DOT4
const BEHIND_SQUARES: u32 = INPUTS; // the next binding

fn square(i: u32) -> f32 {
    return bitcast<f32>(x[2u * X_BLOCKS + i].z);
}
#else
@group(0) @binding(INPUTS) var<storage, read> squares: array<f32>; // squares[COLUMNS, SQUARES]
const BEHIND_SQUARES: u32 = INPUTS + 1u; // the next binding

fn square(i: u32) -> f32 {
    return squares[i];
}
#endif

#ifdef COOP_MATRIX
// What each column's products are to be multiplied by, in `scales`: to be read behind a barrier.
fn inverse_rms_of_all(eps: f32, lane: u32) {
    for (var turn = 0u; turn < COLUMNS; turn += SUBGROUPS_AT_WORK) {
        let c = turn + lane / SUBGROUP;
        var sum = 0.0;
        for (var i = lane % SUBGROUP; i < SQUARES; i += SUBGROUP) {
            sum += square(min(c, COLUMNS - 1u) * SQUARES + i);
        }
        let whole = subgroupAdd(sum);
        if lane % SUBGROUP == 0u && c < COLUMNS {
            scales[c] = select(inverseSqrt(whole / f32(X_COLS) + eps), 1.0, SQUARES == 0u);
        }
    }
}
#else
// What column c's products are to be multiplied by; every invocation of the workgroup takes part.
fn inverse_rms(c: u32, eps: f32, lane: u32) -> f32 {
    if SQUARES == 0u {
        return 1.0;
    }
    var sum = 0.0;
    for (var turn = 0u; turn < (SQUARES + LANES - 1u) / LANES; turn++) {
        let i = turn * LANES + lane % LANES;
        if SQUARES % LANES != 0u && i >= SQUARES {
            break;
        }
        sum += square(c * SQUARES + i);
    }
    return inverseSqrt(lanes_sum(sum, lane) / f32(X_COLS) + eps);
}
#endif
