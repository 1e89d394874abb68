// The product of two tiles by ordinary arithmetic. The workgroup is a grid of TILE_N / COLS columns; an invocation has
// every (TILE_N / COLS)-th of the tile's columns, COLS in all (4 or 8), and as many rows as make up the tile.

const PITCH = TILE_K / 4u;
const LANE_COLS = TILE_N / COLS;
const LANE_ROWS = WORKGROUP / LANE_COLS;
const ROWS = TILE_M / LANE_ROWS;

// Rows and columns of an invocation lie a multiple of 8 apart, so that one place serves them all.
const_assert LANE_ROWS % 8u == 0u && LANE_COLS % 8u == 0u && PITCH % 8u == 0u;

alias Sums = array<vec4<f32>, ROWS * COLS / 4u>; // rows by vectors of four columns

// Rows that an invocation reads have an index of their own, which is a constant once loops are unrolled: browsers keep
// every index within its array, at the cost of an instruction where it is not, and here one is left for all of them.
var<workgroup> x_tile: array<array<Vec4, LANE_ROWS * PITCH>, ROWS>;
var<workgroup> w_tile: array<array<Vec4, LANE_COLS * PITCH>, COLS>;

// Neighbouring rows begin in other banks, so that invocations that read a column of vectors do not collide.
fn tile_at(row: u32, i: u32) -> u32 {
    return row * PITCH + (i ^ (row & 7u));
}

fn put_x(row: u32, i: u32, value: Vec4) {
    x_tile[row / LANE_ROWS][tile_at(row % LANE_ROWS, i)] = value;
}

fn put_w(row: u32, i: u32, value: Vec4) {
    w_tile[row / LANE_COLS][tile_at(row % LANE_COLS, i)] = value;
}

fn multiply(sums: ptr<function, Sums>, lane: u32) {
    let row = lane / LANE_COLS;
    let col = lane % LANE_COLS;
    for (var i = 0u; i < TILE_K / 4u; i++) {
        let from_x = tile_at(row, i);
        let from_w = tile_at(col, i);
        var v: array<vec4<f32>, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            v[r] = vec4<f32>(x_tile[r][from_x]);
        }
        for (var c = 0u; c < COLS / 4u; c++) {
            let w0 = vec4<f32>(w_tile[4u * c][from_w]);
            let w1 = vec4<f32>(w_tile[4u * c + 1u][from_w]);
            let w2 = vec4<f32>(w_tile[4u * c + 2u][from_w]);
            let w3 = vec4<f32>(w_tile[4u * c + 3u][from_w]);
            for (var r = 0u; r < ROWS; r++) {
                (*sums)[r * (COLS / 4u) + c] += vec4<f32>(dot(v[r], w0), dot(v[r], w1), dot(v[r], w2), dot(v[r], w3));
            }
        }
    }
}

fn write_sums(sums: ptr<function, Sums>, m0: u32, n0: u32, lane: u32) {
    for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < COLS; c++) {
            let m = m0 + lane / LANE_COLS + r * LANE_ROWS;
            write(m, n0 + lane % LANE_COLS + c * LANE_COLS, (*sums)[r * (COLS / 4u) + c / 4u][c % 4u]);
        }
    }
}
