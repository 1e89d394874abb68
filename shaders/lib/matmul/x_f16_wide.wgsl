// The input as halves, 16 bytes at a time.
#import half

@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>; // x[M, X_COLS / 8]

const X_UNIT = 8u; // elements that an invocation loads at once
alias XUnit = vec4<u32>;
alias XValues = array<Vec4, 2>;

fn x_values(v: XUnit) -> XValues {
    return XValues(Vec4(half_unpack4(v.xy)), Vec4(half_unpack4(v.zw)));
}
