// Of every 32 scores the best key, of rows that are not removed: an invocation a group, the second dimension is the query.
#import top_k/key

struct Params {
    count: u32, // N, scores of a query, of consecutive rows
    skip: u32, // rows of `removed` before the first one, a multiple of 32
    groups: u32, // of y
    first_group: u32, // of y, that this dispatch writes
}

@group(0) @binding(0) var<storage, read> scores: array<f32>; // scores[Q, N]
@group(0) @binding(1) var<storage, read> removed: array<u32>; // removed[(skip + N) / 32], a bit a row
@group(0) @binding(2) var<storage, read_write> y: array<u32>; // y[Q, groups]
@group(0) @binding(15) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let first = id.x * GROUP;
    if first >= params.count {
        return;
    }
    let gone = removed[params.skip / GROUP + id.x];
    var best = 0u;
    for (var i = 0u; i < GROUP; i++) {
        let row = first + i;
        let key = key_of(scores[id.y * params.count + min(row, params.count - 1u)]);
        best = max(best, select(0u, key, row < params.count && ((gone >> i) & 1u) == 0u));
    }
    y[id.y * params.groups + params.first_group + id.x] = best;
}
