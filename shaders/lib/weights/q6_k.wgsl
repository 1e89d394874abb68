// 256 signed 6-bit values; sixteen sub-blocks with an 8-bit scale: d * scale * (q - 32).
#import groups

const SCALES: u32 = 2u; // of a sub-block
const SIGNED: bool = true; // its bytes
const HALF_SCALES: bool = false; // scale and minimum are halves

struct Raw {
    q: vec4<u32>,
    upper: vec2<u32>, // the highest bits
    scale: vec2<f32>,
}

// Four bytes from 0 to 63, each less 32, as signed bytes; the bit above keeps borrows out of the next byte.
fn less_32(q: u32) -> u32 {
    return ((q | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
}

fn weights_raw(row: u32, block: u32) -> Raw {
    let upper = 4u * (K / 32u) + 2u * block;
    let head = row + K / 32u + K / 64u + block / 8u;
    let pair = w[head][(block % 8u) / 2u] >> (16u * (block & 1u));
    let d = row_half(row, 12u * (K / 32u) + 8u * (K / 256u) + block / 8u);
    return Raw(
        w[row + block],
        vec2<u32>(row_word(row, upper), row_word(row, upper + 1u)),
        d * vec2<f32>(unpack4xI8(pair).xy),
    );
}

fn weights_unpack(raw: Raw) -> Groups {
    var out: Groups;
    for (var g = 0u; g < 4u; g++) {
        out.q[g] = less_32((raw.q[g] & 0x0f0f0f0fu) | (((raw.upper.x >> (2u * g)) & 0x03030303u) << 4u));
        out.q[g + 4u] = less_32(((raw.q[g] >> 4u) & 0x0f0f0f0fu) | (((raw.upper.y >> (2u * g)) & 0x03030303u) << 4u));
    }
    out.scale = raw.scale;
    out.minimum = 0.0;
    return out;
}
