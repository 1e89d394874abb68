// The input as floats.
#ifdef F16
#import narrow
#endif

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // x[M, X_COLS / 4]

const X_UNIT = 4u; // elements that an invocation loads at once
alias XUnit = vec4<f32>;
alias XValues = array<Vec4, 1>;

fn x_values(v: XUnit) -> XValues {
#ifdef F16
    return XValues(Vec4(narrow(v)));
#else
    return XValues(v);
#endif
}
