// The upper halves of 32-bit floats, two to a word.
fn bf16_pairs(a: u32, b: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}

fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    let at = row + 4u * block;
    var out: array<vec4<f32>, 8>;
    for (var i = 0u; i < 4u; i++) {
        let v = w[at + i];
        out[2u * i] = bf16_pairs(v.x, v.y);
        out[2u * i + 1u] = bf16_pairs(v.z, v.w);
    }
    return out;
}
