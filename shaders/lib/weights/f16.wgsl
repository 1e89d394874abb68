// 16-bit floats, two to a word.
alias Raw = array<vec4<u32>, 4>;

fn weights_raw(row: u32, block: u32) -> Raw {
    let at = row + 4u * block;
    var out: Raw;
    for (var i = 0u; i < 4u; i++) {
        out[i] = w[at + i];
    }
    return out;
}

fn weights_values(raw: Raw) -> array<vec4<f32>, 8> {
    var words = raw;
    var out: array<vec4<f32>, 8>;
    for (var i = 0u; i < 4u; i++) {
        let v = words[i];
        out[2u * i] = vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
        out[2u * i + 1u] = vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w));
    }
    return out;
}

fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    return weights_values(weights_raw(row, block));
}
