// Results as floats.

@group(0) @binding(OUTPUT) var<storage, read_write> out: array<vec4<f32>>; // out[M, N / 4]

fn put_vector(index: u32, value: vec4<f32>) {
    out[index] = value;
}

fn put_block(index: u32, values: array<vec4<f32>, 8>) {
    for (var i = 0u; i < 8u; i++) {
        out[8u * index + i] = values[i];
    }
}
