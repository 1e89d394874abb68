// What attention_decode leaves of a whole context: y = Σpv / Σp, zero in rows that are not active.

const OUTPUT: u32 = 6u;
#import output

#ifdef SPREAD
fn put_element(r: u32, head: u32, split: u32, e: u32, value: f32, top: f32, total: f32) {
    let quotient = value * select(0.0, 1.0 / total, total > 0.0);
    put_spread((r * params.heads + head) * (HEAD_DIM / 32u) + e / 32u, e % 32u, quotient, e < HEAD_DIM);
}
#else
var<workgroup> attended: array<vec4<f32>, QUERIES * HEAD_DIM / 4u>;

fn put(r: u32, head: u32, g: u32, split: u32, top: f32, total: f32, lane: u32) {
    let inverse = select(0.0, 1.0 / total, total > 0.0);
    for (var turn = 0u; turn < (HEAD_DIM / 4u + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let c = turn * WORKGROUP + lane;
        if (HEAD_DIM / 4u) % WORKGROUP != 0u && c >= HEAD_DIM / 4u {
            break;
        }
        attended[g * (HEAD_DIM / 4u) + c] = sum_at(c) * inverse;
    }
}

fn finish(r: u32, head: u32, lane: u32) {
    if lane < QUERIES * HEAD_DIM / 32u {
        var values: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            values[i] = attended[8u * lane + i];
        }
        put_block((r * params.heads + head) * (HEAD_DIM / 32u) + lane, values);
    }
}
#endif
