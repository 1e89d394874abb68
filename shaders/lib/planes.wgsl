// Reading the planes of a packed row; layouts in src/layout.rs. `row` counts 16-byte units of w, offsets into the row
// count what the name says.

// What % leaves a browser's compiler knows to lie within a vector; what & leaves it clamps.
fn row_word(row: u32, word: u32) -> u32 {
    return w[row + (word >> 2u)][word % 4u];
}

fn row_half(row: u32, half: u32) -> f32 {
    return unpack2x16float(row_word(row, half >> 1u))[half % 2u];
}

// Bytes 0 and 2 of a word, each plus 1024: below the exponent of 1024 a byte is the f16 1024 + byte. Two are converted at once,
// where integers are converted one by one and on some GPUs slowly.
fn above_1024(q: u32) -> vec2<f32> {
    return unpack2x16float((q & 0x00ff00ffu) | 0x64006400u);
}

// Four bytes as floats.
fn from_bytes(q: u32) -> vec4<f32> {
    let even = above_1024(q);
    let odd = above_1024(q >> 8u);
    return vec4<f32>(even.x, odd.x, even.y, odd.y) - 1024.0;
}

// Four signed bytes as floats.
fn from_signed_bytes(q: u32) -> vec4<f32> {
    return from_bytes(q ^ 0x80808080u) - 128.0;
}

#ifdef COOP_MATRIX
// Bytes 0, 2, 1 and 3 of a word as halves: none is converted, what unpacks and what rounds again cancel out.
fn halves_from_bytes(q: u32) -> vec4<f16> {
    return halves_above_1024(q) - 1024h;
}

// The same of signed bytes.
fn halves_from_signed_bytes(q: u32) -> vec4<f16> {
    return halves_above_1024(q ^ 0x80808080u) - 1152h;
}

fn halves_above_1024(q: u32) -> vec4<f16> {
    return vec4<f16>(vec2<f16>(above_1024(q)), vec2<f16>(above_1024(q >> 8u)));
}
#endif

// Scale and minimum (times -1 where the format says so) of sub-block s of a Q4_K or Q5_K super-block, whose head is
// d, dmin and twelve bytes of 6-bit numbers: sub-blocks 0 to 3 in the lower six bits of bytes s and s + 4, the others
// split over the lower or upper nibble of byte s + 4 and the upper bits of bytes s - 4 and s.
fn k_scale_min(head: vec4<u32>, s: u32) -> vec2<f32> {
    let d = unpack2x16float(head.x);
    let shift = 8u * (s & 3u);
    var scale = (head.y >> shift) & 63u;
    var minimum = (head.z >> shift) & 63u;
    if s >= 4u {
        let last = head.w >> shift;
        scale = (last & 15u) | ((((head.y >> shift) >> 6u) & 3u) << 4u);
        minimum = ((last >> 4u) & 15u) | ((((head.z >> shift) >> 6u) & 3u) << 4u);
    }
    return d * vec2<f32>(f32(scale), f32(minimum));
}
