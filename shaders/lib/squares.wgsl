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

#ifdef SUBGROUPS
const SHARED: u32 = SUBGROUP; // invocations that sum up a column

fn shared_sum(value: f32, lane: u32) -> f32 {
    return subgroupAdd(value);
}
#else
const SHARED: u32 = LANES;

fn shared_sum(value: f32, lane: u32) -> f32 {
    return lanes_sum(value, lane);
}
#endif

// This invocation's share of a column's sum.
fn share_of_squares(c: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var step = 0u; step < (SQUARES + SHARED - 1u) / SHARED; step++) {
        let i = step * SHARED + lane % SHARED;
        if SQUARES % SHARED != 0u && i >= SQUARES {
            break;
        }
        sum += square(c * SQUARES + i);
    }
    return sum;
}

#ifdef COOP_MATRIX
const SEVERAL: bool = true;
#else
const SEVERAL: bool = COLUMNS > 1u;

var<workgroup> scales: array<f32, COLUMNS>;
#endif

// What each of several columns' products are to be multiplied by, in `scales`: to be read behind a barrier. Made once for all
// of the workgroup's rows, all of which take part.
fn scales_of_all(eps: f32, lane: u32) {
    if SQUARES == 0u {
        return;
    }
    for (var turn = 0u; turn < (COLUMNS * SHARED + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let c = (turn * WORKGROUP + lane) / SHARED;
        let sum = shared_sum(share_of_squares(min(c, COLUMNS - 1u), lane), lane);
        if lane % SHARED == 0u && c < COLUMNS {
            scales[c] = inverseSqrt(sum / f32(X_COLS) + eps);
        }
    }
}

// What column c's products are to be multiplied by: of several columns behind that barrier, the only one by all that share a sum.
fn scale_of(c: u32, eps: f32, lane: u32) -> f32 {
    if SQUARES == 0u {
        return 1.0;
    }
    if SEVERAL {
        return scales[c];
    }
    return inverseSqrt(shared_sum(share_of_squares(0u, lane), lane) / f32(X_COLS) + eps);
}
