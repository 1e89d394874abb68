// Tiles of bytes, multiplied by integer dot products. The workgroup is a grid of TILE_N / COLS columns; an invocation has every
// (TILE_N / COLS)-th of the tile's columns, COLS in all, and as many rows as make up the tile.

const BLOCKS = TILE_K / 32u; // of a row of a tile
const LANE_COLS = TILE_N / COLS;
const LANE_ROWS = WORKGROUP / LANE_COLS;
const ROWS = TILE_M / LANE_ROWS;

alias Sums = array<f32, ROWS * COLS>;

// Rows that an invocation reads have an index of their own, as in matmul/lanes. Halves of blocks lie apart, block after block, so
// that neighbouring rows are neighbours.
var<workgroup> x_low: array<array<vec4<u32>, LANE_ROWS * BLOCKS>, ROWS>;
var<workgroup> x_high: array<array<vec4<u32>, LANE_ROWS * BLOCKS>, ROWS>;
var<workgroup> x_about: array<array<vec2<f32>, LANE_ROWS * BLOCKS>, ROWS>; // scale, scale * sum
var<workgroup> w_low: array<array<vec4<u32>, LANE_COLS * BLOCKS>, COLS>;
var<workgroup> w_high: array<array<vec4<u32>, LANE_COLS * BLOCKS>, COLS>;
var<workgroup> w_about: array<array<vec2<f32>, LANE_COLS * BLOCKS>, COLS>; // scale and minimum, or two scales

const X_BLOCKS = TILE_M * BLOCKS;
const W_BLOCKS = TILE_N * BLOCKS;
const X_LOADS = (X_BLOCKS + WORKGROUP - 1u) / WORKGROUP;
const W_LOADS = (W_BLOCKS + WORKGROUP - 1u) / WORKGROUP;

struct XBlock {
    low: vec4<u32>,
    high: vec4<u32>,
    about: vec2<f32>,
}

// What one invocation loads of a pair of tiles, on its way to workgroup memory.
struct Loaded {
    x: array<XBlock, X_LOADS>,
    w: array<Raw, W_LOADS>,
}

// Rows past the end repeat the last one, their results are not written. Scales past K are zero in x, so that any bytes do.
fn load(m0: u32, n0: u32, k0: u32, lane: u32) -> Loaded {
    var out: Loaded;
    let plane = params.m * (K / 32u);
    for (var l = 0u; l < X_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if X_BLOCKS % WORKGROUP == 0u || at < X_BLOCKS {
            let block = k0 / 32u + at % BLOCKS;
            let source = min(m0 + at / BLOCKS, params.m - 1u) * (K / 32u) + min(block, K / 32u - 1u);
            let about = bitcast<vec2<f32>>(x[2u * plane + source].xy);
            out.x[l] = XBlock(x[source], x[plane + source], select(about, vec2<f32>(0.0), block >= K / 32u));
        }
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if W_BLOCKS % WORKGROUP == 0u || at < W_BLOCKS {
            out.w[l] = weights_raw(row_of(n0, at / BLOCKS) * ROW_VEC4, min(k0 / 32u + at % BLOCKS, K / 32u - 1u));
        }
    }
    return out;
}

fn store(loaded: ptr<function, Loaded>, lane: u32) {
    for (var l = 0u; l < X_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if X_BLOCKS % WORKGROUP == 0u || at < X_BLOCKS {
            let row = at / BLOCKS;
            let to = at % BLOCKS * LANE_ROWS + row % LANE_ROWS;
            let block = (*loaded).x[l];
            x_low[row / LANE_ROWS][to] = block.low;
            x_high[row / LANE_ROWS][to] = block.high;
            x_about[row / LANE_ROWS][to] = block.about;
        }
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if W_BLOCKS % WORKGROUP == 0u || at < W_BLOCKS {
            let row = at / BLOCKS;
            let to = at % BLOCKS * LANE_COLS + row % LANE_COLS;
            let groups = weights_unpack((*loaded).w[l]);
            w_low[row / LANE_COLS][to] = vec4<u32>(groups.q[0], groups.q[1], groups.q[2], groups.q[3]);
            w_high[row / LANE_COLS][to] = vec4<u32>(groups.q[4], groups.q[5], groups.q[6], groups.q[7]);
            w_about[row / LANE_COLS][to] = select(vec2<f32>(groups.scale.x, groups.minimum), groups.scale, SCALES == 2u);
        }
    }
}

// Sums of products begin at the bits of the float 1.5 * 2^23, below whose last bit they count, and end as that float plus the
// sum: integers are converted one by one and on some GPUs slowly. A sum is at most 32 * 127 * 128 < 2^22.
const ZERO: i32 = 0x4b400000;
const ZERO_FLOAT: f32 = 12582912.0;

fn dots(a: vec4<u32>, b: vec4<u32>, start: i32) -> i32 {
    return dot4I8Packed(a.w, b.w) + (dot4I8Packed(a.z, b.z) + (dot4I8Packed(a.y, b.y) + (dot4I8Packed(a.x, b.x) + start)));
}

fn multiply(sums: ptr<function, Sums>, lane: u32) {
    let row = lane / LANE_COLS;
    let col = lane % LANE_COLS;
    for (var b = 0u; b < BLOCKS; b++) {
        let from_x = b * LANE_ROWS + row;
        let from_w = b * LANE_COLS + col;
        var low: array<vec4<u32>, ROWS>;
        var high: array<vec4<u32>, ROWS>;
        var about: array<vec2<f32>, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            low[r] = x_low[r][from_x];
            high[r] = x_high[r][from_x];
            about[r] = x_about[r][from_x];
        }
        for (var c = 0u; c < COLS; c++) {
            let w0 = w_low[c][from_w];
            let w1 = w_high[c][from_w];
            let of_w = w_about[c][from_w];
            for (var r = 0u; r < ROWS; r++) {
                let at = r * COLS + c;
                if SCALES == 2u {
                    let first = bitcast<f32>(dots(low[r], w0, ZERO)) - ZERO_FLOAT;
                    let second = bitcast<f32>(dots(high[r], w1, ZERO)) - ZERO_FLOAT;
                    (*sums)[at] += about[r].x * (of_w.x * first + of_w.y * second);
                } else {
                    let sum = bitcast<f32>(dots(high[r], w1, dots(low[r], w0, ZERO))) - ZERO_FLOAT;
                    (*sums)[at] += about[r].x * (of_w.x * sum) - of_w.y * about[r].y;
                }
            }
        }
    }
}

fn write_sums(sums: ptr<function, Sums>, m0: u32, n0: u32, lane: u32) {
    for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < COLS; c++) {
            let m = m0 + lane / LANE_COLS + r * LANE_ROWS;
            write(m, n0 + lane % LANE_COLS + c * LANE_COLS, (*sums)[r * COLS + c]);
        }
    }
}
