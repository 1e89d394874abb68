// Attention within packed texts by cooperative matrices: a tile of rows attends to the keys of all its texts, each row to those of
// its own.
#import narrow
#import attention/matrices

const ROW: u32 = 3u * HEADS * UNITS;

// Keys, or values, of the head from row `key` on. Of what lies past the end any finite value does, its weight is 0.
fn load(key: u32, last: u32, column: u32, lane: u32) -> Loaded {
    var out: Loaded;
    for (var i = 0u; i < LOADS; i++) {
        let at = min(lane + i * WORKGROUP, KEYS * UNITS - 1u);
        out[i] = raw_at(min(key + at / UNITS, last) * ROW + column + at % UNITS);
    }
    return out;
}

fn place_of(place: Place, row: u32) -> u32 {
    return ((place.first + row) * HEADS + place.head) * COLUMNS;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * QUERIES;
    let head = group.y * UNITS;
    // Rows are in the order of their texts, so these are the bounds of all keys.
    let begin = rows[first].z;
    let end = rows[min(first + QUERIES, params.rows) - 1u].w;
    let query = first + row_of(lane);
    let text = rows[min(query, params.rows - 1u)];

    let last = max(end, 1u) - 1u;
    var keys = load(begin, last, HEADS * UNITS + head, lane);
    var values = load(begin, last, 2u * HEADS * UNITS + head, lane);
    // Queries go through the tile, as many at a time as it holds.
    var q: Queries;
    for (var part = 0u; part < PARTS; part++) {
        if part > 0u {
            workgroupBarrier();
        }
        for (var l = 0u; l < QUERY_LOADS; l++) {
            let i = lane + l * WORKGROUP;
            if QUERIES / PARTS * UNITS % WORKGROUP == 0u || i < QUERIES / PARTS * UNITS {
                let source = min(first + part * (QUERIES / PARTS) + i / UNITS, params.rows - 1u);
                let raw = raw_at(source * ROW + head + i % UNITS);
                let to = i / UNITS * PITCH + 2u * (i % UNITS);
                tile[to] = narrow(vec4<f32>(raw_low(raw)) * params.scale);
                tile[to + 1u] = narrow(vec4<f32>(raw_high(raw)) * params.scale);
            }
        }
        workgroupBarrier();
        if first_of(lane) / (QUERIES / PARTS) == part {
            load_queries(&q, first_of(lane) % (QUERIES / PARTS) * PITCH);
        }
    }
    var o: Sums;
    var softmax = Softmax(LOWEST, 0.0);
    for (var key = begin; key < end; key += KEYS) {
        // Behind what was read of the tile before.
        workgroupBarrier();
        keep(keys, 0u, lane);
        keep(values, KEYS, lane);
        workgroupBarrier();
        keys = load(key + KEYS, last, HEADS * UNITS + head, lane);
        values = load(key + KEYS, last, 2u * HEADS * UNITS + head, lane);
        attend(&q, &o, &softmax, key, text.z, text.w, lane);
    }
    // Rows that are no text's attended to nothing.
    put_rows(&o, softmax, Place(first, group.y), params.rows - first, lane);
}
