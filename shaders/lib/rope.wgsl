// Turning pairs of a head's elements by a position, and storing them in the cache. Needs a binding
// `rope: array<vec2<f32>>`, rope[256 + n_ctx / 256, ROPE_DIM / 2] = (cos, sin).

const PAIRS: u32 = ROPE_DIM / 2u;

// (cos, sin) of a position's angle: the product of its low and its high byte's.
fn angle(position: u32, pair: u32) -> vec2<f32> {
    let low = rope[(position & 255u) * PAIRS + pair];
    let high = rope[(256u + (position >> 8u)) * PAIRS + pair];
    return vec2<f32>(low.x * high.x - low.y * high.y, low.x * high.y + low.y * high.x);
}

// The two elements of a pair.
fn pair_elements(pair: u32) -> vec2<u32> {
    if INTERLEAVED {
        return vec2<u32>(2u * pair, 2u * pair + 1u);
    }
    return vec2<u32>(pair, pair + PAIRS);
}

// The cache holds finite numbers only, because attention multiplies what it masks by zero. Written on bits: WGSL lets
// compilers assume that there is no NaN.
fn finite(v: f32) -> f32 {
    let bits = bitcast<u32>(v) & 0x7fffffffu;
    return clamp(select(v, 0.0, bits > 0x7f800000u), -65504.0, 65504.0);
}

fn pack(a: f32, b: f32) -> u32 {
    return pack2x16float(vec2<f32>(finite(a), finite(b)));
}
