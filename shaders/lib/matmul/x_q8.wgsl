// The input as bytes.

@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>; // x[3, M, X_COLS / 32]: see q8
