// 32 signed 5-bit values and a scale: d * (q - 16).
#import planes

struct Groups {
    q: array<u32, 8>,
    scale: vec2<f32>, // of elements 0 to 15 and 16 to 31
    minimum: f32, // subtracted from every element
}

// The sub-block as packed bytes: element = scale * q - minimum. Group g holds elements 4g to 4g + 3.
fn weights_groups(row: u32, block: u32) -> Groups {
    let nibbles = w[row + block];
    let fifth = row_word(row, 4u * (K / 32u) + block);
    var out: Groups;
    for (var g = 0u; g < 4u; g++) {
        out.q[g] = (nibbles[g] & 0x0f0f0f0fu) | (((fifth >> g) & 0x01010101u) << 4u);
        out.q[g + 4u] = ((nibbles[g] >> 4u) & 0x0f0f0f0fu) | (((fifth >> (g + 4u)) & 0x01010101u) << 4u);
    }
    let d = row_half(row, 10u * (K / 32u) + block);
    out.scale = vec2<f32>(d);
    out.minimum = 16.0 * d;
    return out;
}

fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    let groups = weights_groups(row, block);
    var out: array<vec4<f32>, 8>;
    for (var g = 0u; g < 8u; g++) {
        out[g] = groups.scale[g >> 2u] * from_bytes(groups.q[g]) - groups.minimum;
    }
    return out;
}
