// Attention to pages of the cache by cooperative matrices.

@group(0) @binding(3) var<storage, read> k_cache: array<vec4<u32>>; // k_cache[pages, kv_count, PAGE, HEAD_DIM / 8], halves
@group(0) @binding(4) var<storage, read> v_cache: array<vec4<u32>>; // v_cache[pages, kv_count, PAGE, HEAD_DIM / 8], halves

#import narrow
#import attention/raw_f16
#import attention/matrices

fn load_keys(from_page: u32, lane: u32) -> Loaded {
    var out: Loaded;
    for (var i = 0u; i < LOADS; i++) {
        out[i] = k_cache[from_page + min(lane + i * WORKGROUP, KEYS * UNITS - 1u)];
    }
    return out;
}

fn load_values(from_page: u32, lane: u32) -> Loaded {
    var out: Loaded;
    for (var i = 0u; i < LOADS; i++) {
        out[i] = v_cache[from_page + min(lane + i * WORKGROUP, KEYS * UNITS - 1u)];
    }
    return out;
}

// Where the KEYS keys from `key` on lie in the cache.
fn cached(slot: u32, kv: u32, key: u32) -> u32 {
    let page = page_table[slot * params.max_pages + key / PAGE];
    return ((page * params.kv_count + kv) * PAGE + key % PAGE) * UNITS;
}

fn place_of(place: Place, row: u32) -> u32 {
    let query = place.first + row;
    return (query / GROUP * params.heads + place.head + query % GROUP) * COLUMNS;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let kv = group.y;
    // The last tile has the most keys and starts first.
    let queries = tile_of(groups.x - 1u - group.x, QUERIES);
    let own = row_of(lane);
    let query = min(queries.first_query + own, queries.queries - 1u);
    let row = rows[query / GROUP];
    let first_own = first_of(lane);
    let head = (params.kv_start + kv) * GROUP;
    let row_stride = (params.heads + 2u * params.kv_heads) * COLUMNS;

    // Queries go through the tile, as many at a time as it holds.
    var q: Queries;
    for (var part = 0u; part < PARTS; part++) {
        if part > 0u {
            workgroupBarrier();
        }
        for (var l = 0u; l < QUERY_LOADS; l++) {
            let i = lane + l * WORKGROUP;
            if QUERIES / PARTS * UNITS % WORKGROUP == 0u || i < QUERIES / PARTS * UNITS {
                let source = min(queries.first_query + part * (QUERIES / PARTS) + i / UNITS, queries.queries - 1u);
                let at = source / GROUP * row_stride + (head + source % GROUP) * COLUMNS + i % UNITS * 2u;
                let to = i / UNITS * PITCH + 2u * (i % UNITS);
                tile[to] = narrow(qkv[at] * params.scale);
                tile[to + 1u] = narrow(qkv[at + 1u] * params.scale);
            }
        }
        workgroupBarrier();
        if first_own / (QUERIES / PARTS) == part {
            load_queries(&q, first_own % (QUERIES / PARTS) * PITCH);
        }
    }
    var o: Sums;
    var softmax = Softmax(LOWEST, 0.0);

    var next_slot = 0u;
    loop {
        let slot = subgroupMin(slot_from(queries, next_slot, lane % SUBGROUP, SUBGROUP));
        if slot == 0xffffffffu {
            break;
        }
        next_slot = slot + 1u;
        let last = subgroupMax(last_of(queries, slot, lane % SUBGROUP, SUBGROUP));
        let end = select(0u, row.z + 1u, row.w != 0u && row.y == slot);
        var keys = load_keys(cached(slot, kv, 0u), lane);
        var values = load_values(cached(slot, kv, 0u), lane);
        for (var key = 0u; key <= last; key += KEYS) {
            // Behind what was read of the tile before.
            workgroupBarrier();
            keep(keys, 0u, lane);
            keep(values, KEYS, lane);
            workgroupBarrier();
            let next = cached(slot, kv, select(key, key + KEYS, key + KEYS <= last));
            keys = load_keys(next, lane);
            values = load_values(next, lane);
            attend(&q, &o, &softmax, key, 0u, end, lane);
        }
    }

    // Rows that are not active attended to nothing.
    put_rows(&o, softmax, Place(queries.first_query, head), queries.queries - queries.first_query, lane);
}
