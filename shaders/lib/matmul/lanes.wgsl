// The product of two tiles by ordinary arithmetic. The workgroup is a grid of TILE_N / 4 columns; an invocation has
// every (TILE_N / 4)-th of the tile's columns, four in all, and as many rows as make up the tile.

const PITCH = TILE_K / 4u;
const LANE_COLS = TILE_N / 4u;
const LANE_ROWS = WORKGROUP / LANE_COLS;
const ROWS = TILE_M / LANE_ROWS;

alias Sums = array<vec4<f32>, ROWS>; // rows by four columns

// Neighbouring rows begin in other banks, so that invocations that read a column of vectors do not collide.
fn tile_at(row: u32, i: u32) -> u32 {
    return row * PITCH + (i ^ (row & 7u));
}

fn multiply(sums: ptr<function, Sums>, lane: u32) {
    let row = lane / LANE_COLS;
    let col = lane % LANE_COLS;
    for (var i = 0u; i < TILE_K / 4u; i++) {
        let w0 = vec4<f32>(w_tile[tile_at(col, i)]);
        let w1 = vec4<f32>(w_tile[tile_at(col + LANE_COLS, i)]);
        let w2 = vec4<f32>(w_tile[tile_at(col + 2u * LANE_COLS, i)]);
        let w3 = vec4<f32>(w_tile[tile_at(col + 3u * LANE_COLS, i)]);
        for (var r = 0u; r < ROWS; r++) {
            let v = vec4<f32>(x_tile[tile_at(row + r * LANE_ROWS, i)]);
            (*sums)[r] += vec4<f32>(dot(v, w0), dot(v, w1), dot(v, w2), dot(v, w3));
        }
    }
}

fn write_sums(sums: ptr<function, Sums>, m0: u32, n0: u32, lane: u32) {
    for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < 4u; c++) {
            write(m0 + lane / LANE_COLS + r * LANE_ROWS, n0 + lane % LANE_COLS + c * LANE_COLS, (*sums)[r][c]);
        }
    }
}
