// 256 4-bit values; eight sub-blocks with scale and minimum: d * scale * q - dmin * minimum.
#import groups

const SCALES: u32 = 1u; // of a sub-block
const SIGNED: bool = false; // its bytes
const HALF_SCALES: bool = false; // scale and minimum are halves

struct Raw {
    q: vec4<u32>,
    scale_min: vec2<f32>,
}

fn weights_raw(row: u32, block: u32) -> Raw {
    return Raw(w[row + block], k_scale_min(w[row + K / 32u + block / 8u], block % 8u));
}

fn weights_unpack(raw: Raw) -> Groups {
    var out: Groups;
    for (var g = 0u; g < 4u; g++) {
        out.q[g] = raw.q[g] & 0x0f0f0f0fu;
        out.q[g + 4u] = (raw.q[g] >> 4u) & 0x0f0f0f0fu;
    }
    out.scale = vec2<f32>(raw.scale_min.x);
    out.minimum = raw.scale_min.y;
    return out;
}
