// Candidates are rows that are not removed.
@group(0) @binding(0) var<storage, read> scores: array<f32>; // scores[Q, N]
@group(0) @binding(1) var<storage, read> removed: array<u32>; // removed[(skip + N) / 32], a bit a row
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>; // y[Q, groups, TOP] = (key, id)

fn candidate(query: u32, index: u32) -> vec2<u32> {
    let row = params.skip + index;
    if ((removed[row / 32u] >> (row % 32u)) & 1u) != 0u {
        return NONE;
    }
    return vec2<u32>(key_of(scores[query * params.count + index]), params.first_id + index);
}
