// Activations as signed bytes for integer dot products: 32 values share a scale; scale * Σq goes with them, since a
// weight's minimum is multiplied by the activations' sum.
//
// They lie in three planes of 16 bytes a block, [3, M, K / 32]: bytes 0 to 15; bytes 16 to 31; scale, scale * Σq, the sum of
// the squares of what the norm behind these values is still to divide by, where there is one, and 0. Neighbours read
// neighbouring blocks of a plane, and all of it is one binding: what a browser's dispatch costs grows with their number.

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
