// Candidates are what earlier steps chose.
@group(0) @binding(0) var<storage, read> pairs: array<vec2<u32>>; // pairs[Q, N] = (key, id)
@group(0) @binding(1) var<storage, read_write> y: array<vec2<u32>>; // y[Q, groups, TOP] = (key, id)

fn candidate(query: u32, index: u32) -> vec2<u32> {
    return pairs[query * params.count + index];
}
