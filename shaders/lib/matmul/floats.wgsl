// Tiles in vectors of four along K; put_x and put_w know where they lie.

const X_UNITS = TILE_M * TILE_K / X_UNIT;
const W_UNITS = TILE_N * TILE_K / UNIT;
const X_LOADS = (X_UNITS + WORKGROUP - 1u) / WORKGROUP;
const W_LOADS = (W_UNITS + WORKGROUP - 1u) / WORKGROUP;

// What one invocation loads of a pair of tiles, on its way to workgroup memory.
struct Loaded {
    x: array<XUnit, X_LOADS>,
    w: array<Unit, W_LOADS>,
}

// Rows past the end repeat the last one, their results are not written. What lies past K counts as zero in x, so that
// any value does in w.
fn load(m0: u32, n0: u32, k0: u32, lane: u32) -> Loaded {
    var out: Loaded;
    for (var l = 0u; l < X_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if X_UNITS % WORKGROUP == 0u || at < X_UNITS {
            let m = min(m0 + at / (TILE_K / X_UNIT), params.m - 1u);
            let i = k0 / X_UNIT + at % (TILE_K / X_UNIT);
            if X_COLS % TILE_K == 0u {
                out.x[l] = x[m * (X_COLS / X_UNIT) + i];
            } else {
                out.x[l] = x[m * (X_COLS / X_UNIT) + min(i, X_COLS / X_UNIT - 1u)];
                if i >= X_COLS / X_UNIT {
                    out.x[l] = XUnit();
                }
            }
        }
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if W_UNITS % WORKGROUP == 0u || at < W_UNITS {
            let n = row_of(n0, at / (TILE_K / UNIT));
            let unit = min(k0 / UNIT + at % (TILE_K / UNIT), K / UNIT - 1u);
            out.w[l] = unit_raw(n * ROW_VEC4, unit);
        }
    }
    return out;
}

fn store(loaded: ptr<function, Loaded>, lane: u32) {
    for (var l = 0u; l < X_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if X_UNITS % WORKGROUP == 0u || at < X_UNITS {
            var values = x_values((*loaded).x[l]);
            for (var j = 0u; j < X_UNIT / 4u; j++) {
                put_x(at / (TILE_K / X_UNIT), at % (TILE_K / X_UNIT) * (X_UNIT / 4u) + j, values[j]);
            }
        }
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if W_UNITS % WORKGROUP == 0u || at < W_UNITS {
            var values = unit_values((*loaded).w[l]);
            for (var j = 0u; j < UNIT / 4u; j++) {
                put_w(at / (TILE_K / UNIT), at % (TILE_K / UNIT) * (UNIT / 4u) + j, Vec4(values[j]));
            }
        }
    }
}
