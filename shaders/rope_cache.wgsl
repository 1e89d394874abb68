// Turns queries and keys by their positions, and stores keys and values in the cache's pages as f16.
// One invocation a pair of a query head, or a word (two elements) of a key or value head.

struct Params {
    rows: u32,
    heads: u32, // H, query heads in qkv
    kv_heads: u32, // KV, key heads in qkv
    q_heads: u32, // query heads turned here: H, or 0 in all shards but the first
    kv_start: u32, // first KV head of this shard
    kv_count: u32, // KV heads of this shard
    max_pages: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>; // rows[M] = (token, slot, position, active)
@group(0) @binding(1) var<storage, read> rope: array<vec2<f32>>; // rope[256 + n_ctx / 256, ROPE_DIM / 2] = (cos, sin)
@group(0) @binding(2) var<storage, read> page_table: array<u32>; // page_table[slots, max_pages]
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>; // qkv[M, (H + 2 KV) * HEAD_DIM]
@group(0) @binding(4) var<storage, read_write> k_cache: array<u32>; // k_cache[pages, kv_count, PAGE, HEAD_DIM / 2]
@group(0) @binding(5) var<storage, read_write> v_cache: array<u32>; // v_cache[pages, kv_count, PAGE, HEAD_DIM / 2]
@group(0) @binding(15) var<uniform> params: Params;

const WORDS: u32 = HEAD_DIM / 2u;

#import rope

// Element e of the key head at `head` after the turn.
fn turned(head: u32, e: u32, position: u32) -> f32 {
    if e >= ROPE_DIM {
        return qkv[head + e];
    }
    var pair = e >> 1u;
    var second = (e & 1u) == 1u;
    if !INTERLEAVED {
        second = e >= PAIRS;
        pair = select(e, e - PAIRS, second);
    }
    let at = pair_elements(pair);
    let x = vec2<f32>(qkv[head + at.x], qkv[head + at.y]);
    let turn = angle(position, pair);
    return select(x.x * turn.x - x.y * turn.y, x.x * turn.y + x.y * turn.x, second);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let unit = group.x * WORKGROUP + lane;
    let q_units = params.q_heads * PAIRS;
    let kv_units = params.kv_count * WORDS;
    if unit >= q_units + 2u * kv_units {
        return;
    }
    for (var r = group.y; r < params.rows; r += groups.y) {
        let row = rows[r];
        if row.w == 0u {
            continue;
        }
        let start = r * (params.heads + 2u * params.kv_heads) * HEAD_DIM;
        if unit < q_units {
            let pair = unit % PAIRS;
            let at = start + unit / PAIRS * HEAD_DIM + pair_elements(pair);
            let x = vec2<f32>(qkv[at.x], qkv[at.y]);
            let turn = angle(row.z, pair);
            qkv[at.x] = x.x * turn.x - x.y * turn.y;
            qkv[at.y] = x.x * turn.y + x.y * turn.x;
            continue;
        }
        let is_value = unit >= q_units + kv_units;
        let kv_unit = unit - q_units - select(0u, kv_units, is_value);
        let head = kv_unit / WORDS;
        let word = kv_unit % WORDS;
        let from_head = params.heads + params.kv_start + head + select(0u, params.kv_heads, is_value);
        let x = start + from_head * HEAD_DIM;
        let page = page_table[row.y * params.max_pages + row.z / PAGE];
        let to = ((page * params.kv_count + head) * PAGE + row.z % PAGE) * WORDS + word;
        if is_value {
            v_cache[to] = pack(qkv[x + 2u * word], qkv[x + 2u * word + 1u]);
        } else {
            k_cache[to] = pack(turned(x, 2u * word, row.z), turned(x, 2u * word + 1u, row.z));
        }
    }
}
