// 32 signed 8-bit values and a scale: d * q.
#import planes

struct Groups {
    q: array<u32, 8>,
    scale: vec2<f32>, // of elements 0 to 15 and 16 to 31
    minimum: f32, // subtracted from every element
}

// The sub-block as packed bytes: element = scale * q - minimum. Group g holds elements 4g to 4g + 3.
fn weights_groups(row: u32, block: u32) -> Groups {
    let low = w[row + 2u * block];
    let high = w[row + 2u * block + 1u];
    var out: Groups;
    for (var g = 0u; g < 4u; g++) {
        out.q[g] = low[g];
        out.q[g + 4u] = high[g];
    }
    out.scale = vec2<f32>(row_half(row, 16u * (K / 32u) + block));
    out.minimum = 0.0;
    return out;
}

fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    let groups = weights_groups(row, block);
    var out: array<vec4<f32>, 8>;
    for (var g = 0u; g < 8u; g++) {
        out[g] = groups.scale.x * from_signed_bytes(groups.q[g]);
    }
    return out;
}
