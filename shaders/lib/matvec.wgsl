// Rows of w times COLUMNS columns of x: each weight is read once and used for all of them. LANES invocations share TILE
// rows; each takes every LANES-th sub-block of 32, of plain formats every LANES-th 16 bytes.
#ifdef COOP_MATRIX
#import skinny
#else
#import weights

@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>; // w[N, K] packed
#ifdef DOT4
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>, 3u * X_BLOCKS>; // x[3, COLUMNS, K / 32]: see q8
const INPUTS: u32 = 2u; // the next binding
const X_BLOCKS: u32 = COLUMNS * (K / 32u);
#else
#ifdef TILES
@group(0) @binding(1) var<storage, read> x: array<vec2<u32>>; // x[K / 16, TILE_M, 4]
const INPUTS: u32 = 2u; // the next binding

// Four values of x, which lie in the order 0, 2, 1, 3.
fn x_load(c: u32, i: u32) -> vec4<f32> {
    let v = x[(i / 4u * TILE_M + c) * 4u + i % 4u];
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)).xzyw;
}
#else
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // x[COLUMNS, X_COLS / 4]
const INPUTS: u32 = 2u; // the next binding

// Four values of x; zero past its end, where the rows of w are padded with zeros.
fn x_load(c: u32, i: u32) -> vec4<f32> {
    if K != X_COLS && i >= X_COLS / 4u {
        return vec4<f32>(0.0);
    }
    return x[c * (X_COLS / 4u) + i];
}
#endif
#endif

#ifndef SUBGROUPS
var<workgroup> partial: array<f32, WORKGROUP>; // of floats: neighbours must not write into one vector
#endif

// The sum over the LANES invocations that share rows; every invocation of the workgroup takes part.
fn lanes_sum(value: f32, lane: u32) -> f32 {
#ifdef SUBGROUPS
    if LANES == SUBGROUP {
        return subgroupAdd(value);
    }
    var sum = value;
    for (var i = 0u; i < countTrailingZeros(LANES); i++) {
        sum += subgroupShuffleXor(sum, 1u << i);
    }
    return sum;
#else
    // Each adds all of them behind one barrier, where halving them takes a barrier each time.
    workgroupBarrier();
    partial[lane] = value;
    workgroupBarrier();
    let first = lane - lane % LANES;
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < LANES / 4u; i++) {
        let at = first + 4u * i;
        sum += vec4<f32>(partial[at], partial[at + 1u], partial[at + 2u], partial[at + 3u]);
    }
    return sum.x + sum.y + sum.z + sum.w;
#endif
}

alias Tile = array<array<f32, COLUMNS>, TILE>;

#ifndef DOT4
#ifndef TILES
// Units of each row that are on their way at once: with one column, 64 or 128 bytes of an invocation in plain formats.
const AHEAD: u32 = select(1u, select(2u, 4u, TILE < 4u), COLUMNS == 1u && UNIT < 32u);
#endif
#endif

// This invocation's share of the products of some rows; `lanes_sum` makes them whole.
fn dots(rows: array<u32, TILE>, lane: u32) -> Tile {
    var at_row = rows;
    var sums: Tile;
#ifdef DOT4
    for (var turn = 0u; turn < (K / 32u + LANES - 1u) / LANES; turn++) {
        let block = turn * LANES + lane % LANES;
        if (K / 32u) % LANES != 0u && block >= K / 32u {
            break;
        }
        for (var t = 0u; t < TILE; t++) {
            let groups_of_4 = weights_groups(at_row[t] * ROW_VEC4, block);
            for (var c = 0u; c < COLUMNS; c++) {
                let at = c * (K / 32u) + block;
                let low = x[at];
                let high = x[X_BLOCKS + at];
                var sum = vec2<i32>(0);
                for (var g = 0u; g < 4u; g++) {
                    sum.x += dot4I8Packed(groups_of_4.q[g], low[g]);
                    sum.y += dot4I8Packed(groups_of_4.q[g + 4u], high[g]);
                }
                let scale = bitcast<vec2<f32>>(x[2u * X_BLOCKS + at].xy);
                var product = groups_of_4.scale.x * f32(sum.x + sum.y);
                if SCALES == 2u {
                    product = dot(groups_of_4.scale, vec2<f32>(sum));
                }
                sums[t][c] += scale.x * product - groups_of_4.minimum * scale.y;
            }
        }
    }
#else
#ifdef TILES
    for (var turn = 0u; turn < (K / 32u + LANES - 1u) / LANES; turn++) {
        let block = turn * LANES + lane % LANES;
        if (K / 32u) % LANES != 0u && block >= K / 32u {
            break;
        }
        for (var t = 0u; t < TILE; t++) {
            let values = weights_block(at_row[t] * ROW_VEC4, block);
            for (var c = 0u; c < COLUMNS; c++) {
                var sum = 0.0;
                for (var i = 0u; i < 8u; i++) {
                    sum += dot(values[i], x_load(c, 8u * block + i));
                }
                sums[t][c] += sum;
            }
        }
    }
#else
    // Unrolled it would be slower: what is to be under way at once is written out.
    for (var first = lane % LANES; first < K / UNIT; first += AHEAD * LANES) {
        var loaded: array<array<Unit, TILE>, AHEAD>;
        for (var u = 0u; u < AHEAD; u++) {
            for (var t = 0u; t < TILE; t++) {
                loaded[u][t] = unit_raw(at_row[t] * ROW_VEC4, min(first + u * LANES, K / UNIT - 1u));
            }
        }
        for (var u = 0u; u < AHEAD; u++) {
            let unit = first + u * LANES;
            var from_x: array<array<vec4<f32>, UNIT / 4u>, COLUMNS>;
            for (var c = 0u; c < COLUMNS; c++) {
                for (var i = 0u; i < UNIT / 4u; i++) {
                    from_x[c][i] = x_load(c, UNIT / 4u * min(unit, K / UNIT - 1u) + i);
                    if K / UNIT % (AHEAD * LANES) != 0u && unit >= K / UNIT {
                        from_x[c][i] = vec4<f32>(0.0);
                    }
                }
            }
            for (var t = 0u; t < TILE; t++) {
                var values = unit_values(loaded[u][t]);
                for (var c = 0u; c < COLUMNS; c++) {
                    var sum = 0.0;
                    for (var i = 0u; i < UNIT / 4u; i++) {
                        sum += dot(values[i], from_x[c][i]);
                    }
                    sums[t][c] += sum;
                }
            }
        }
    }
#endif
#endif
    return sums;
}
#endif
