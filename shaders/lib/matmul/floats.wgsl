// Tiles in vectors of four along K; put_x and put_w know where they lie.

const X_UNITS = TILE_M * TILE_K / X_UNIT;
const W_UNITS = TILE_N * TILE_K / UNIT;
const X_LOADS = (X_UNITS + WORKGROUP - 1u) / WORKGROUP;
const W_LOADS = (W_UNITS + WORKGROUP - 1u) / WORKGROUP;
const X_ROW = TILE_K / X_UNIT; // units of a row
const W_ROW = TILE_K / UNIT;

// Row and place within it of an invocation's l-th unit. Of whole tiles, where rows divide the workgroup, as the same place of rows at
// equal distances.
fn x_place(lane: u32, l: u32) -> vec2<u32> {
    if WHOLE && WORKGROUP % X_ROW == 0u {
        return vec2<u32>(lane / X_ROW + l * (WORKGROUP / X_ROW), lane % X_ROW);
    }
    return vec2<u32>((lane + l * WORKGROUP) / X_ROW, (lane + l * WORKGROUP) % X_ROW);
}

fn w_place(lane: u32, l: u32) -> vec2<u32> {
    if WHOLE && WORKGROUP % W_ROW == 0u {
        return vec2<u32>(lane / W_ROW + l * (WORKGROUP / W_ROW), lane % W_ROW);
    }
    return vec2<u32>((lane + l * WORKGROUP) / W_ROW, (lane + l * WORKGROUP) % W_ROW);
}

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
            let place = x_place(lane, l);
            var m = m0 + place.x;
            if !WHOLE {
                m = min(m, params.m - 1u);
            }
            let i = k0 / X_UNIT + place.y;
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
            let place = w_place(lane, l);
            var unit = k0 / UNIT + place.y;
            if !WHOLE || K % TILE_K != 0u {
                unit = min(unit, K / UNIT - 1u);
            }
            out.w[l] = unit_raw(row_of(n0, place.x) * ROW_VEC4, unit);
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
                let place = x_place(lane, l);
                put_x(place.x, place.y * (X_UNIT / 4u) + j, values[j]);
            }
        }
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if W_UNITS % WORKGROUP == 0u || at < W_UNITS {
            var values = unit_values((*loaded).w[l]);
            for (var j = 0u; j < UNIT / 4u; j++) {
                let place = w_place(lane, l);
                put_w(place.x, place.y * (UNIT / 4u) + j, Vec4(values[j]));
            }
        }
    }
}
