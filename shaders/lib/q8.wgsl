// Activations as signed bytes for integer dot products: 32 values share a scale; scale * Σq goes with them, since a
// weight's minimum is multiplied by the activations' sum.

struct Q8 {
    q: array<u32, 8>,
    scale: f32,
    sum: f32, // scale * Σq
}

fn q8_pack(v: array<vec4<f32>, 8>) -> Q8 {
    var values = v;
    var largest = 0.0;
    for (var i = 0u; i < 8u; i++) {
        let a = abs(values[i]);
        largest = max(largest, max(max(a.x, a.y), max(a.z, a.w)));
    }
    let scale = largest / 127.0;
    var inverse = 0.0;
    if scale > 0.0 {
        inverse = 1.0 / scale;
    }
    var out: Q8;
    var sum = 0;
    for (var i = 0u; i < 8u; i++) {
        let q = vec4<i32>(round(values[i] * inverse));
        sum += q.x + q.y + q.z + q.w;
        out.q[i] = pack4xI8(q);
    }
    out.scale = scale;
    out.sum = scale * f32(sum);
    return out;
}
