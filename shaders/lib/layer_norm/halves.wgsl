// x + y as halves, in place; where asked for the same beside it as floats.
#import half

@group(0) @binding(2) var<storage, read> y: array<vec2<u32>>; // y[M, K / 4]
@group(0) @binding(3) var<storage, read_write> x: array<vec2<u32>>; // x[M, K / 4]

const OUTPUT: u32 = 4u;
#import output

fn row_at(row: u32, at: u32) -> vec4<f32> {
    let index = row * VECTORS + at;
    return half_unpack4(x[index]) + half_unpack4(y[index]);
}

fn put(index: u32, value: vec4<f32>) {
    x[index] = half_pack4(value);
    put_vector(index, value);
}
