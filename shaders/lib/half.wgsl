// Half-precision numbers kept in pairs in u32 words, the first in the low bits. None of it needs the feature f16.
//
// `unpack2x16float` and `pack2x16float` it is, never a bitcast between u32 and a vector of f16: naga 30 turns that
// silently into a bitcast to f32.

// The two numbers of a word.
fn half_unpack(word: u32) -> vec2<f32> {
    return unpack2x16float(word);
}

// The four numbers of two words, in order.
fn half_unpack4(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

// The number in half `index & 1` of a word: element `i` of an array lies in word `i / 2`.
fn half_at(word: u32, index: u32) -> f32 {
    return unpack2x16float(word >> ((index & 1u) * 16u)).x;
}

// The largest finite half-precision number: WGSL leaves the packing of what is beyond it open.
const HALF_MAX: f32 = 65504.0;

// Two numbers in a word, rounded and kept finite.
fn half_pack(value: vec2<f32>) -> u32 {
    return pack2x16float(clamp(value, vec2<f32>(-HALF_MAX), vec2<f32>(HALF_MAX)));
}

// Four numbers in two words, in order, rounded and kept finite.
fn half_pack4(value: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(half_pack(value.xy), half_pack(value.zw));
}
