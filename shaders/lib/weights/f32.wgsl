// 32-bit floats.
alias Raw = array<vec4<u32>, 8>;

fn weights_raw(row: u32, block: u32) -> Raw {
    let at = row + 8u * block;
    var out: Raw;
    for (var i = 0u; i < 8u; i++) {
        out[i] = w[at + i];
    }
    return out;
}

fn weights_values(raw: Raw) -> array<vec4<f32>, 8> {
    var words = raw;
    var out: array<vec4<f32>, 8>;
    for (var i = 0u; i < 8u; i++) {
        let v = words[i];
        out[i] = bitcast<vec4<f32>>(v);
    }
    return out;
}

fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    return weights_values(weights_raw(row, block));
}
