// The input as floats.

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // x[M, X_COLS / 4]
alias XVec = vec4<f32>;

fn x_narrow(v: XVec) -> Vec4 {
#ifdef F16
    // Conversion of what f16 cannot hold is undefined.
    return Vec4(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
#else
    return v;
#endif
}
