// The input as halves, 16 bytes at a time.
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>; // x[M, X_COLS / 8]

const X_UNIT = 8u; // elements that an invocation loads at once
alias XUnit = vec4<u32>;
alias XValues = array<Vec4, 2>;

fn x_values(v: XUnit) -> XValues {
    return XValues(Vec4(vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y))),
                   Vec4(vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w))));
}
