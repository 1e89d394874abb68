// 32 4-bit values, a scale and a minimum that is added: d * q + m.
#import groups

const SCALES: u32 = 1u; // of a sub-block
const SIGNED: bool = false; // its bytes
const HALF_SCALES: bool = true; // scale and minimum are halves

struct Raw {
    q: vec4<u32>,
    dm: u32,
}

fn weights_raw(row: u32, block: u32) -> Raw {
    return Raw(w[row + block], row_word(row, 4u * (K / 32u) + block));
}

fn weights_unpack(raw: Raw) -> Groups {
    var out: Groups;
    for (var g = 0u; g < 4u; g++) {
        out.q[g] = raw.q[g] & 0x0f0f0f0fu;
        out.q[g + 4u] = (raw.q[g] >> 4u) & 0x0f0f0f0fu;
    }
    let dm = unpack2x16float(raw.dm);
    out.scale = vec2<f32>(dm.x);
    out.minimum = -dm.y;
    return out;
}
