// y = softmax(q · kᵀ * scale, causal) · v, tile by tile with an online softmax (FlashAttention, Dao et al. 2022). A tile of
// queries is rows times the query heads of one KV head. Rows of several slots in a tile are served slot by slot, other
// slots' masked; a tile of one sequence, the usual one, is served in one go.

struct Params {
    rows: u32,
    heads: u32, // H
    kv_heads: u32, // KV, key heads in qkv
    kv_start: u32, // first KV head of this shard
    kv_count: u32, // KV heads of this shard
    max_pages: u32,
    scale: f32, // of scores, times log2(e)
}

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>; // rows[M] = (token, slot, position, active)
@group(0) @binding(1) var<storage, read> page_table: array<u32>; // page_table[slots, max_pages]
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // qkv[M, (H + 2 KV) * HEAD_DIM]
@group(0) @binding(15) var<uniform> params: Params;

const OUTPUT: u32 = 5u;
#import output

const LOWEST: f32 = -3e38;

struct Tile {
    first_query: u32,
    queries: u32, // of all tiles
    first_row: u32,
    end_row: u32,
}

fn tile_of(index: u32, size: u32) -> Tile {
    let first = index * size;
    return Tile(first, params.rows * GROUP, first / GROUP, min((first + size - 1u) / GROUP, params.rows - 1u) + 1u);
}

// The smallest slot from `start` on among the tile's active rows, of every `step`-th from `first` on; all ones where there is none.
fn slot_from(tile: Tile, start: u32, first: u32, step: u32) -> u32 {
    var slot = 0xffffffffu;
    for (var r = tile.first_row + first; r < tile.end_row; r += step) {
        let row = rows[r];
        slot = min(slot, select(0xffffffffu, row.y, row.w != 0u && row.y >= start));
    }
    return slot;
}

// The last position of the slot's active rows in the tile, of every `step`-th from `first` on.
fn last_of(tile: Tile, slot: u32, first: u32, step: u32) -> u32 {
    var last = 0u;
    for (var r = tile.first_row + first; r < tile.end_row; r += step) {
        let row = rows[r];
        last = max(last, select(0u, row.z, row.w != 0u && row.y == slot));
    }
    return last;
}

#ifdef COOP_MATRIX
#import attention/coop
#else
#import attention/lanes
#endif
