// The input as floats.

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // x[M, X_COLS / 4]

const X_UNIT = 4u; // elements that an invocation loads at once
alias XUnit = vec4<f32>;
alias XValues = array<Vec4, 1>;

fn x_values(v: XUnit) -> XValues {
#ifdef F16
    // Conversion of what f16 cannot hold is undefined.
    return XValues(Vec4(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0))));
#else
    return XValues(v);
#endif
}
