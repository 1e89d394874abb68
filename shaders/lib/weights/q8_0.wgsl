// 32 signed 8-bit values and a scale: d * q.
#import groups

const SCALES: u32 = 1u; // of a sub-block
const SIGNED: bool = true; // its bytes
const HALF_SCALES: bool = true; // scale and minimum are halves

struct Raw {
    low: vec4<u32>,
    high: vec4<u32>,
    d: f32,
}

fn weights_raw(row: u32, block: u32) -> Raw {
    return Raw(w[row + 2u * block], w[row + 2u * block + 1u], row_half(row, 16u * (K / 32u) + block));
}

fn weights_unpack(raw: Raw) -> Groups {
    var out: Groups;
    for (var g = 0u; g < 4u; g++) {
        out.q[g] = raw.low[g];
        out.q[g + 4u] = raw.high[g];
    }
    out.scale = vec2<f32>(raw.d);
    out.minimum = 0.0;
    return out;
}
