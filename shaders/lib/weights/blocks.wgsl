// Blocks of 32 elements out of a plain format's units. Neighbouring invocations read neighbouring units: where each reads
// a block of its own, 64 bytes or more lie between what they load at once.

fn weights_raw(row: u32, block: u32) -> Raw {
    var out: Raw;
    for (var i = 0u; i < 32u / UNIT; i++) {
        out[i] = unit_raw(row, 32u / UNIT * block + i);
    }
    return out;
}

fn weights_values(raw: Raw) -> array<vec4<f32>, 8> {
    var units = raw;
    var out: array<vec4<f32>, 8>;
    for (var i = 0u; i < 32u / UNIT; i++) {
        var values = unit_values(units[i]);
        for (var j = 0u; j < UNIT / 4u; j++) {
            out[UNIT / 4u * i + j] = values[j];
        }
    }
    return out;
}

fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    return weights_values(weights_raw(row, block));
}

#ifdef COOP_MATRIX
// A unit in halves, of every four elements 0, 2, 1 and 3, as the quantised formats give them.
fn unit_halves(raw: Unit) -> array<vec4<f16>, UNIT / 4u> {
    var values = unit_values(raw);
    var out: array<vec4<f16>, UNIT / 4u>;
    for (var i = 0u; i < UNIT / 4u; i++) {
        out[i] = vec4<f16>(values[i].xzyw);
    }
    return out;
}
#endif
