// 32 signed 5-bit values and a scale: d * (q - 16).
#import groups

const SCALES: u32 = 1u; // of a sub-block
const SIGNED: bool = false; // its bytes
const HALF_SCALES: bool = true; // scale and minimum are halves

struct Raw {
    q: vec4<u32>,
    fifth: u32, // the highest bits
    d: f32,
}

fn weights_raw(row: u32, block: u32) -> Raw {
    let fifth = row_word(row, 4u * (K / 32u) + block);
    return Raw(w[row + block], fifth, row_half(row, 10u * (K / 32u) + block));
}

fn weights_unpack(raw: Raw) -> Groups {
    var out: Groups;
    for (var g = 0u; g < 4u; g++) {
        out.q[g] = (raw.q[g] & 0x0f0f0f0fu) | (((raw.fifth >> g) & 0x01010101u) << 4u);
        out.q[g + 4u] = ((raw.q[g] >> 4u) & 0x0f0f0f0fu) | (((raw.fifth >> (g + 4u)) & 0x01010101u) << 4u);
    }
    out.scale = vec2<f32>(raw.d);
    out.minimum = 16.0 * raw.d;
    return out;
}
