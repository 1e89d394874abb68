// Candidates are places of keys.
@group(0) @binding(0) var<storage, read> all_keys: array<u32>; // all_keys[Q, N]
@group(0) @binding(1) var<storage, read_write> y: array<vec2<u32>>; // y[Q, groups, TOP] = (key, id)

fn candidate(query: u32, index: u32) -> vec2<u32> {
    return vec2<u32>(all_keys[query * params.count + index], index);
}
