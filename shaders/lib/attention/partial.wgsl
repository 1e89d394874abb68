// What attention_decode leaves of a split: sums that attention_merge joins.

#ifdef SPREAD
// One by one: neighbours must not write into one vector.
@group(0) @binding(6) var<storage, read_write> partial: array<f32>; // partial[M, H, splits, HEAD_DIM + 2]: Σpv, max, Σp

fn put_element(r: u32, head: u32, split: u32, e: u32, value: f32, top: f32, total: f32) {
    let to = ((r * params.heads + head) * params.splits + split) * (HEAD_DIM + 2u);
    if e < HEAD_DIM {
        partial[to + e] = value;
    }
    if e == 0u {
        // A split without keys is never read; zero keeps it the same in every run.
        partial[to + HEAD_DIM] = select(0.0, top, total > 0.0);
        partial[to + HEAD_DIM + 1u] = total;
    }
}
#else
@group(0) @binding(6) var<storage, read_write> partial: array<vec2<f32>>; // partial[M, H, splits, HEAD_DIM + 2]: Σpv, max, Σp

fn put(r: u32, head: u32, g: u32, split: u32, top: f32, total: f32, lane: u32) {
    let to = ((r * params.heads + head + g) * params.splits + split) * (HEAD_DIM / 2u + 1u);
    for (var turn = 0u; turn < (HEAD_DIM / 4u + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let c = turn * WORKGROUP + lane;
        if (HEAD_DIM / 4u) % WORKGROUP != 0u && c >= HEAD_DIM / 4u {
            break;
        }
        let sum = sum_at(c);
        partial[to + 2u * c] = sum.xy;
        partial[to + 2u * c + 1u] = sum.zw;
    }
    if lane == 0u {
        // A split without keys is never read; zero keeps it the same in every run.
        partial[to + HEAD_DIM / 2u] = vec2<f32>(select(0.0, top, total > 0.0), total);
    }
}

fn finish(r: u32, head: u32, lane: u32) {
}
#endif
