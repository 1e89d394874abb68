// x + add as floats, in place; where asked for the same beside it as halves.
@group(0) @binding(2) var<storage, read> add: array<vec4<f32>>; // add[P, K]
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>; // rows[M] = (token, position, start, end)
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>; // x[M, K]

const OUTPUT: u32 = 5u;
#import output

fn row_at(row: u32, at: u32) -> vec4<f32> {
    var added = at;
    if BY_POSITION {
        added += rows[row].y * VECTORS;
    }
    return x[row * VECTORS + at] + add[added];
}

fn put(index: u32, value: vec4<f32>) {
    x[index] = value;
    put_vector(index, value);
}
