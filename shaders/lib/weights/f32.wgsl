// 32-bit floats.
fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    let at = row + 8u * block;
    var out: array<vec4<f32>, 8>;
    for (var i = 0u; i < 8u; i++) {
        out[i] = bitcast<vec4<f32>>(w[at + i]);
    }
    return out;
}
