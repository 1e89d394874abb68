// The input as halves.

#ifdef F16
@group(0) @binding(1) var<storage, read> x: array<vec4<f16>>; // x[M, X_COLS / 4]
alias XVec = vec4<f16>;

fn x_narrow(v: XVec) -> Vec4 {
    return v;
}
#else
@group(0) @binding(1) var<storage, read> x: array<vec2<u32>>; // x[M, X_COLS / 4]
alias XVec = vec2<u32>;

fn x_narrow(v: XVec) -> Vec4 {
    return Vec4(unpack2x16float(v.x), unpack2x16float(v.y));
}
#endif
