// 16-bit floats, two to a word.
fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    let at = row + 4u * block;
    var out: array<vec4<f32>, 8>;
    for (var i = 0u; i < 4u; i++) {
        let v = w[at + i];
        out[2u * i] = vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
        out[2u * i + 1u] = vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w));
    }
    return out;
}
