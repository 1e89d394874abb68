// 256 signed 6-bit values; sixteen sub-blocks with an 8-bit scale: d * scale * (q - 32).
#import planes

struct Groups {
    q: array<u32, 8>,
    scale: vec2<f32>, // of elements 0 to 15 and 16 to 31
    minimum: f32, // subtracted from every element
}

// Four bytes from 0 to 63, each less 32, as signed bytes; the bit above keeps borrows out of the next byte.
fn less_32(q: u32) -> u32 {
    return ((q | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
}

// The sub-block as packed bytes: element = scale * q - minimum. Group g holds elements 4g to 4g + 3.
fn weights_groups(row: u32, block: u32) -> Groups {
    let nibbles = w[row + block];
    let upper = 4u * (K / 32u) + 2u * block;
    let upper_low = row_word(row, upper);
    let upper_high = row_word(row, upper + 1u);
    var out: Groups;
    for (var g = 0u; g < 4u; g++) {
        out.q[g] = less_32((nibbles[g] & 0x0f0f0f0fu) | (((upper_low >> (2u * g)) & 0x03030303u) << 4u));
        out.q[g + 4u] = less_32(((nibbles[g] >> 4u) & 0x0f0f0f0fu) | (((upper_high >> (2u * g)) & 0x03030303u) << 4u));
    }
    let head = row + K / 32u + K / 64u + block / 8u;
    let pair = w[head][(block % 8u) / 2u] >> (16u * (block & 1u));
    let d = row_half(row, 12u * (K / 32u) + 8u * (K / 256u) + block / 8u);
    out.scale = d * vec2<f32>(unpack4xI8(pair).xy);
    out.minimum = 0.0;
    return out;
}

fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    let groups = weights_groups(row, block);
    var out: array<vec4<f32>, 8>;
    for (var g = 0u; g < 8u; g++) {
        out[g] = groups.scale[g >> 2u] * from_signed_bytes(groups.q[g]);
    }
    return out;
}
