// The input as halves.

const X_UNIT = 4u; // elements that an invocation loads at once
alias XValues = array<Vec4, 1>;

#ifdef F16
@group(0) @binding(1) var<storage, read> x: array<vec4<f16>>; // x[M, X_COLS / 4]
alias XUnit = vec4<f16>;

fn x_values(v: XUnit) -> XValues {
    return XValues(v);
}
#else
@group(0) @binding(1) var<storage, read> x: array<vec2<u32>>; // x[M, X_COLS / 4]
alias XUnit = vec2<u32>;

fn x_values(v: XUnit) -> XValues {
    return XValues(Vec4(unpack2x16float(v.x), unpack2x16float(v.y)));
}
#endif
