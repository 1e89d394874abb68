// Attention by cooperative matrices of SIDE x SIDE. Four subgroups, each with SIDE queries of its own, take a page of
// keys at a time; keys and values come straight from the cache. Sums of outputs stay in registers. A row's exponents are
// relative to `top`, which follows the row's maximum only when that is HEADROOM above it: seldom, so that the sums are
// seldom taken through workgroup memory to be rescaled, and p <= 2^HEADROOM fits f16. Matrices are written out instead of
// in loops: in an array they stay in registers only where every index is a constant.

@group(0) @binding(3) var<storage, read> k_cache: array<vec4<f16>>; // k_cache[pages, kv_count, PAGE, HEAD_DIM]
@group(0) @binding(4) var<storage, read> v_cache: array<vec4<f16>>; // v_cache[pages, kv_count, PAGE, HEAD_DIM]

const WORKGROUP: u32 = 4u * SUBGROUP;
const QUERIES: u32 = 4u * SIDE;
const HEADROOM: f32 = 6.0;
const COLUMNS: u32 = HEAD_DIM / 4u; // vectors of four in a head
const TILES: u32 = HEAD_DIM / SIDE;
const BATCH: u32 = PAGE / SIDE; // matrices side by side in `scores`
const BATCHES: u32 = (TILES + BATCH - 1u) / BATCH;
const WAYS: u32 = SUBGROUP / SIDE; // invocations that share a row
const HELD: u32 = PAGE / 4u / WAYS;
// Rows end in padding, so that eight of them lie in different banks.
const Q_PITCH: u32 = COLUMNS + 2u;
const S_PITCH: u32 = PAGE / 4u + 1u;
const P_PITCH: u32 = PAGE / 4u + 2u;

alias Sums = array<MatC, 16>;

var<workgroup> queries_tile: array<vec4<f16>, QUERIES * Q_PITCH>;
var<workgroup> scores: array<vec4<f32>, QUERIES * S_PITCH>;
var<workgroup> weights: array<vec4<f16>, QUERIES * P_PITCH>;
var<workgroup> wanted: u32;

// naga 30 emits what a store's arguments compute after the store itself, hence the names for them.
fn put_matrix(sum: MatC, own: u32, tile: u32) {
    let at = own + tile % BATCH * (SIDE / 4u);
    coopStoreT(sum, &scores[at], S_PITCH);
}

fn get_matrix(own: u32, tile: u32) -> MatC {
    let at = own + tile % BATCH * (SIDE / 4u);
    return coopLoadT<MatC>(&scores[at], S_PITCH);
}

fn store_batch(o: ptr<function, Sums>, own: u32, batch: u32) {
    if TILES > 0u && batch == 0u / BATCH {
        put_matrix((*o)[0], own, 0u);
    }
    if TILES > 1u && batch == 1u / BATCH {
        put_matrix((*o)[1], own, 1u);
    }
    if TILES > 2u && batch == 2u / BATCH {
        put_matrix((*o)[2], own, 2u);
    }
    if TILES > 3u && batch == 3u / BATCH {
        put_matrix((*o)[3], own, 3u);
    }
    if TILES > 4u && batch == 4u / BATCH {
        put_matrix((*o)[4], own, 4u);
    }
    if TILES > 5u && batch == 5u / BATCH {
        put_matrix((*o)[5], own, 5u);
    }
    if TILES > 6u && batch == 6u / BATCH {
        put_matrix((*o)[6], own, 6u);
    }
    if TILES > 7u && batch == 7u / BATCH {
        put_matrix((*o)[7], own, 7u);
    }
    if TILES > 8u && batch == 8u / BATCH {
        put_matrix((*o)[8], own, 8u);
    }
    if TILES > 9u && batch == 9u / BATCH {
        put_matrix((*o)[9], own, 9u);
    }
    if TILES > 10u && batch == 10u / BATCH {
        put_matrix((*o)[10], own, 10u);
    }
    if TILES > 11u && batch == 11u / BATCH {
        put_matrix((*o)[11], own, 11u);
    }
    if TILES > 12u && batch == 12u / BATCH {
        put_matrix((*o)[12], own, 12u);
    }
    if TILES > 13u && batch == 13u / BATCH {
        put_matrix((*o)[13], own, 13u);
    }
    if TILES > 14u && batch == 14u / BATCH {
        put_matrix((*o)[14], own, 14u);
    }
    if TILES > 15u && batch == 15u / BATCH {
        put_matrix((*o)[15], own, 15u);
    }
}

fn load_batch(o: ptr<function, Sums>, own: u32, batch: u32) {
    if TILES > 0u && batch == 0u / BATCH {
        (*o)[0] = get_matrix(own, 0u);
    }
    if TILES > 1u && batch == 1u / BATCH {
        (*o)[1] = get_matrix(own, 1u);
    }
    if TILES > 2u && batch == 2u / BATCH {
        (*o)[2] = get_matrix(own, 2u);
    }
    if TILES > 3u && batch == 3u / BATCH {
        (*o)[3] = get_matrix(own, 3u);
    }
    if TILES > 4u && batch == 4u / BATCH {
        (*o)[4] = get_matrix(own, 4u);
    }
    if TILES > 5u && batch == 5u / BATCH {
        (*o)[5] = get_matrix(own, 5u);
    }
    if TILES > 6u && batch == 6u / BATCH {
        (*o)[6] = get_matrix(own, 6u);
    }
    if TILES > 7u && batch == 7u / BATCH {
        (*o)[7] = get_matrix(own, 7u);
    }
    if TILES > 8u && batch == 8u / BATCH {
        (*o)[8] = get_matrix(own, 8u);
    }
    if TILES > 9u && batch == 9u / BATCH {
        (*o)[9] = get_matrix(own, 9u);
    }
    if TILES > 10u && batch == 10u / BATCH {
        (*o)[10] = get_matrix(own, 10u);
    }
    if TILES > 11u && batch == 11u / BATCH {
        (*o)[11] = get_matrix(own, 11u);
    }
    if TILES > 12u && batch == 12u / BATCH {
        (*o)[12] = get_matrix(own, 12u);
    }
    if TILES > 13u && batch == 13u / BATCH {
        (*o)[13] = get_matrix(own, 13u);
    }
    if TILES > 14u && batch == 14u / BATCH {
        (*o)[14] = get_matrix(own, 14u);
    }
    if TILES > 15u && batch == 15u / BATCH {
        (*o)[15] = get_matrix(own, 15u);
    }
}

fn score(at: u32, keys: u32, own: u32) {
    var s: array<MatC, 8>;
    s = array<MatC, 8>();
    for (var d = 0u; d < COLUMNS; d += SIDE / 4u) {
        let q = coopLoadT<MatA>(&queries_tile[at + d], Q_PITCH);
        s[0] = coopMultiplyAdd(q, coopLoad<MatB>(&k_cache[keys + d + 0u * SIDE * COLUMNS], COLUMNS), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd(q, coopLoad<MatB>(&k_cache[keys + d + 1u * SIDE * COLUMNS], COLUMNS), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd(q, coopLoad<MatB>(&k_cache[keys + d + 2u * SIDE * COLUMNS], COLUMNS), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd(q, coopLoad<MatB>(&k_cache[keys + d + 3u * SIDE * COLUMNS], COLUMNS), s[3]);
        }
        if BATCH > 4u {
            s[4] = coopMultiplyAdd(q, coopLoad<MatB>(&k_cache[keys + d + 4u * SIDE * COLUMNS], COLUMNS), s[4]);
        }
        if BATCH > 5u {
            s[5] = coopMultiplyAdd(q, coopLoad<MatB>(&k_cache[keys + d + 5u * SIDE * COLUMNS], COLUMNS), s[5]);
        }
        if BATCH > 6u {
            s[6] = coopMultiplyAdd(q, coopLoad<MatB>(&k_cache[keys + d + 6u * SIDE * COLUMNS], COLUMNS), s[6]);
        }
        if BATCH > 7u {
            s[7] = coopMultiplyAdd(q, coopLoad<MatB>(&k_cache[keys + d + 7u * SIDE * COLUMNS], COLUMNS), s[7]);
        }
    }
    put_matrix(s[0], own, 0u);
    if BATCH > 1u {
        put_matrix(s[1], own, 1u);
    }
    if BATCH > 2u {
        put_matrix(s[2], own, 2u);
    }
    if BATCH > 3u {
        put_matrix(s[3], own, 3u);
    }
    if BATCH > 4u {
        put_matrix(s[4], own, 4u);
    }
    if BATCH > 5u {
        put_matrix(s[5], own, 5u);
    }
    if BATCH > 6u {
        put_matrix(s[6], own, 6u);
    }
    if BATCH > 7u {
        put_matrix(s[7], own, 7u);
    }
}

fn weigh(o: ptr<function, Sums>, own: u32, values: u32) {
    for (var k = 0u; k < BATCH; k++) {
        let p = coopLoadT<MatA>(&weights[own + k * (SIDE / 4u)], P_PITCH);
        let v = values + k * SIDE * COLUMNS;
        (*o)[0] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 0u * (SIDE / 4u)], COLUMNS), (*o)[0]);
        if TILES > 1u {
            (*o)[1] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 1u * (SIDE / 4u)], COLUMNS), (*o)[1]);
        }
        if TILES > 2u {
            (*o)[2] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 2u * (SIDE / 4u)], COLUMNS), (*o)[2]);
        }
        if TILES > 3u {
            (*o)[3] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 3u * (SIDE / 4u)], COLUMNS), (*o)[3]);
        }
        if TILES > 4u {
            (*o)[4] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 4u * (SIDE / 4u)], COLUMNS), (*o)[4]);
        }
        if TILES > 5u {
            (*o)[5] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 5u * (SIDE / 4u)], COLUMNS), (*o)[5]);
        }
        if TILES > 6u {
            (*o)[6] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 6u * (SIDE / 4u)], COLUMNS), (*o)[6]);
        }
        if TILES > 7u {
            (*o)[7] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 7u * (SIDE / 4u)], COLUMNS), (*o)[7]);
        }
        if TILES > 8u {
            (*o)[8] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 8u * (SIDE / 4u)], COLUMNS), (*o)[8]);
        }
        if TILES > 9u {
            (*o)[9] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 9u * (SIDE / 4u)], COLUMNS), (*o)[9]);
        }
        if TILES > 10u {
            (*o)[10] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 10u * (SIDE / 4u)], COLUMNS), (*o)[10]);
        }
        if TILES > 11u {
            (*o)[11] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 11u * (SIDE / 4u)], COLUMNS), (*o)[11]);
        }
        if TILES > 12u {
            (*o)[12] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 12u * (SIDE / 4u)], COLUMNS), (*o)[12]);
        }
        if TILES > 13u {
            (*o)[13] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 13u * (SIDE / 4u)], COLUMNS), (*o)[13]);
        }
        if TILES > 14u {
            (*o)[14] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 14u * (SIDE / 4u)], COLUMNS), (*o)[14]);
        }
        if TILES > 15u {
            (*o)[15] = coopMultiplyAdd(p, coopLoadT<MatB>(&v_cache[v + 15u * (SIDE / 4u)], COLUMNS), (*o)[15]);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let kv = group.y;
    // The last tile has the most keys and starts first.
    let tile = tile_of(groups.x - 1u - group.x, QUERIES);
    let own = lane / WAYS; // the row whose softmax this invocation shares
    let way = lane % WAYS;
    let query = min(tile.first_query + own, tile.queries - 1u);
    let row = rows[query / GROUP];
    let first_own = lane / SUBGROUP * SIDE;
    let head = (params.kv_start + kv) * GROUP;
    let row_stride = (params.heads + 2u * params.kv_heads) * COLUMNS;

    for (var i = lane; i < QUERIES * COLUMNS; i += WORKGROUP) {
        let source = min(tile.first_query + i / COLUMNS, tile.queries - 1u);
        let value = qkv[source / GROUP * row_stride + (head + source % GROUP) * COLUMNS + i % COLUMNS] * params.scale;
        queries_tile[i / COLUMNS * Q_PITCH + i % COLUMNS] =
            vec4<f16>(clamp(value, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
    }
    if lane == 0u {
        wanted = 0u;
    }
    var o: Sums;
    o = Sums();
    var top = LOWEST;
    var total = 0.0; // of this invocation's keys

    var next_slot = 0u;
    loop {
        let slot = slot_from(tile, next_slot);
        if slot == 0xffffffffu {
            break;
        }
        next_slot = slot + 1u;
        let last = last_of(tile, slot);
        let limit = select(-1, i32(row.z), row.w != 0u && row.y == slot);
        for (var key = 0u; key <= last; key += PAGE) {
            let page = page_table[slot * params.max_pages + key / PAGE];
            let cached = (page * params.kv_count + kv) * PAGE * COLUMNS;
            // Also orders this page's scores behind the last one's.
            workgroupBarrier();
            score(first_own * Q_PITCH, cached, first_own * S_PITCH);
            workgroupBarrier();
            var held: array<vec4<f32>, HELD>;
            var best = LOWEST;
            for (var i = 0u; i < HELD; i++) {
                let column = way + i * WAYS;
                let inside = vec4<i32>(i32(key + 4u * column)) + vec4<i32>(0, 1, 2, 3) <= vec4<i32>(limit);
                held[i] = select(vec4<f32>(LOWEST), scores[own * S_PITCH + column], inside);
                best = max(best, max(max(held[i].x, held[i].y), max(held[i].z, held[i].w)));
            }
            for (var distance = 1u; distance < WAYS; distance <<= 1u) {
                best = max(best, subgroupShuffleXor(best, distance));
            }
            var rescale = 1.0;
            if top == LOWEST {
                top = best;
            } else if best > top + HEADROOM {
                rescale = exp2(top - best);
                top = best;
                wanted = 1u;
            }
            total *= rescale;
            for (var i = 0u; i < HELD; i++) {
                let p = vec4<f16>(select(vec4<f32>(0.0), exp2(held[i] - top), held[i] > vec4<f32>(LOWEST)));
                // Of the rounded weights, so that they add up to one.
                total += dot(vec4<f32>(p), vec4<f32>(1.0));
                weights[own * P_PITCH + way + i * WAYS] = p;
            }
            if workgroupUniformLoad(&wanted) != 0u {
                for (var batch = 0u; batch < BATCHES; batch++) {
                    store_batch(&o, first_own * S_PITCH, batch);
                    workgroupBarrier();
                    for (var i = 0u; i < HELD; i++) {
                        scores[own * S_PITCH + way + i * WAYS] *= rescale;
                    }
                    workgroupBarrier();
                    load_batch(&o, first_own * S_PITCH, batch);
                    workgroupBarrier();
                }
                if lane == 0u {
                    wanted = 0u;
                }
            }
            weigh(&o, first_own * P_PITCH, cached);
        }
    }

    for (var distance = 1u; distance < WAYS; distance <<= 1u) {
        total += subgroupShuffleXor(total, distance);
    }
    // Rows that are not active attended to nothing and become zero.
    let inverse = select(0.0, 1.0 / total, total > 0.0);
    let to = (query / GROUP * params.heads + head + query % GROUP) * COLUMNS;
    for (var batch = 0u; batch < BATCHES; batch++) {
        workgroupBarrier();
        store_batch(&o, first_own * S_PITCH, batch);
        workgroupBarrier();
        for (var i = 0u; i < HELD; i++) {
            let column = batch * (PAGE / 4u) + way + i * WAYS;
            if column < COLUMNS && tile.first_query + own < tile.queries {
                put_vector(to + column, scores[own * S_PITCH + way + i * WAYS] * inverse);
            }
        }
    }
}
