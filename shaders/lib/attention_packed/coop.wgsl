// By cooperative matrices of SIDE x SIDE: four subgroups, each with SIDE rows of its own, take KEYS keys at a time
// through workgroup memory. Twice over the keys: first for the rows' largest scores, then for the sums, so that sums never have to
// be rescaled and stay in registers. Matrices are written out instead of in loops: in an array they stay in registers only
// where every index is a constant.

#import narrow

const WORKGROUP: u32 = 4u * SUBGROUP;
const QUERIES: u32 = 4u * SIDE;
const COLUMNS: u32 = HEAD_DIM / 4u; // vectors of four in a head
const ROW: u32 = 3u * HEADS * COLUMNS;
const TILES: u32 = HEAD_DIM / SIDE;
const WAYS: u32 = SUBGROUP / SIDE; // invocations that share a row
const HELD: u32 = KEYS / 4u / WAYS;
// Rows end in padding, so that eight of them lie in different banks.
const D_PITCH: u32 = COLUMNS + 2u;
const K_PITCH: u32 = KEYS / 4u + 2u;
const S_PITCH: u32 = max(KEYS, HEAD_DIM) / 4u + 1u;

alias Sums = array<MatC, 8>;

var<workgroup> q_tile: array<vec4<f16>, QUERIES * D_PITCH>; // [query][d]
var<workgroup> k_tile: array<vec4<f16>, KEYS * D_PITCH>; // [key][d]
var<workgroup> v_tile: array<vec4<f16>, HEAD_DIM * K_PITCH>; // [d][key]
var<workgroup> p_tile: array<vec4<f16>, QUERIES * K_PITCH>; // [query][key]
var<workgroup> scores: array<vec4<f32>, QUERIES * S_PITCH>; // [query][key], at last [query][d]

fn load_keys(key: u32, end: u32, column: u32, lane: u32) {
    for (var i = lane; i < KEYS * COLUMNS; i += WORKGROUP) {
        let row = min(key + i / COLUMNS, end - 1u);
        k_tile[i / COLUMNS * D_PITCH + i % COLUMNS] = narrow(qkv_at(row * ROW + column + i % COLUMNS));
    }
}

// Turned around: four keys of four elements each at a time. Of what lies past the end any finite value does, its weight is 0.
fn load_values(key: u32, end: u32, column: u32, lane: u32) {
    for (var i = lane; i < KEYS / 4u * COLUMNS; i += WORKGROUP) {
        let four = i / COLUMNS;
        let at = column + i % COLUMNS;
        let v0 = narrow(qkv_at(min(key + 4u * four, end - 1u) * ROW + at));
        let v1 = narrow(qkv_at(min(key + 4u * four + 1u, end - 1u) * ROW + at));
        let v2 = narrow(qkv_at(min(key + 4u * four + 2u, end - 1u) * ROW + at));
        let v3 = narrow(qkv_at(min(key + 4u * four + 3u, end - 1u) * ROW + at));
        let to = i % COLUMNS * 4u * K_PITCH + four;
        v_tile[to] = vec4<f16>(v0.x, v1.x, v2.x, v3.x);
        v_tile[to + K_PITCH] = vec4<f16>(v0.y, v1.y, v2.y, v3.y);
        v_tile[to + 2u * K_PITCH] = vec4<f16>(v0.z, v1.z, v2.z, v3.z);
        v_tile[to + 3u * K_PITCH] = vec4<f16>(v0.w, v1.w, v2.w, v3.w);
    }
}

// The scores of a subgroup's rows with all keys of the tile.
fn score(first_own: u32) {
    for (var j = 0u; j < KEYS / SIDE; j++) {
        var sum = array<MatC, 1>();
        for (var d = 0u; d < COLUMNS; d += SIDE / 4u) {
            let a = coopLoadT<MatA>(&q_tile[first_own * D_PITCH + d], D_PITCH);
            let b = coopLoad<MatB>(&k_tile[j * SIDE * D_PITCH + d], D_PITCH);
            sum[0] = coopMultiplyAdd(a, b, sum[0]);
        }
        // naga 30 emits what a store's arguments compute after the store itself, hence the names for them.
        let result = sum[0];
        let at = first_own * S_PITCH + j * (SIDE / 4u);
        coopStoreT(result, &scores[at], S_PITCH);
    }
}

fn weigh_tile(p: MatA, k: u32, tile: u32, sum: MatC) -> MatC {
    let v = coopLoad<MatB>(&v_tile[tile * SIDE * K_PITCH + k], K_PITCH);
    return coopMultiplyAdd(p, v, sum);
}

fn weigh(o: ptr<function, Sums>, first_own: u32) {
    for (var k = 0u; k < KEYS / 4u; k += SIDE / 4u) {
        let p = coopLoadT<MatA>(&p_tile[first_own * K_PITCH + k], K_PITCH);
        (*o)[0] = weigh_tile(p, k, 0u, (*o)[0]);
        if TILES > 1u {
            (*o)[1] = weigh_tile(p, k, 1u, (*o)[1]);
        }
        if TILES > 2u {
            (*o)[2] = weigh_tile(p, k, 2u, (*o)[2]);
        }
        if TILES > 3u {
            (*o)[3] = weigh_tile(p, k, 3u, (*o)[3]);
        }
        if TILES > 4u {
            (*o)[4] = weigh_tile(p, k, 4u, (*o)[4]);
        }
        if TILES > 5u {
            (*o)[5] = weigh_tile(p, k, 5u, (*o)[5]);
        }
        if TILES > 6u {
            (*o)[6] = weigh_tile(p, k, 6u, (*o)[6]);
        }
        if TILES > 7u {
            (*o)[7] = weigh_tile(p, k, 7u, (*o)[7]);
        }
    }
}

fn put(sum: MatC, first_own: u32, tile: u32) {
    let at = first_own * S_PITCH + tile * (SIDE / 4u);
    coopStoreT(sum, &scores[at], S_PITCH);
}

fn put_all(o: ptr<function, Sums>, first_own: u32) {
    put((*o)[0], first_own, 0u);
    if TILES > 1u {
        put((*o)[1], first_own, 1u);
    }
    if TILES > 2u {
        put((*o)[2], first_own, 2u);
    }
    if TILES > 3u {
        put((*o)[3], first_own, 3u);
    }
    if TILES > 4u {
        put((*o)[4], first_own, 4u);
    }
    if TILES > 5u {
        put((*o)[5], first_own, 5u);
    }
    if TILES > 6u {
        put((*o)[6], first_own, 6u);
    }
    if TILES > 7u {
        put((*o)[7], first_own, 7u);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * QUERIES;
    let head = group.y * COLUMNS;
    let first_own = lane / SUBGROUP * SIDE;
    // The WAYS invocations of a row are neighbours: way + WAYS * row of the subgroup.
    let own = first_own + lane % SUBGROUP / WAYS;
    let way = lane % WAYS;
    // Rows are in the order of their texts, so these are the bounds of all keys.
    let begin = rows[first].z;
    let end = rows[min(first + QUERIES, params.rows) - 1u].w;
    let text = rows[min(first + own, params.rows - 1u)];

    for (var i = lane; i < QUERIES * COLUMNS; i += WORKGROUP) {
        let query = min(first + i / COLUMNS, params.rows - 1u);
        q_tile[i / COLUMNS * D_PITCH + i % COLUMNS] =
            narrow(qkv_at(query * ROW + head + i % COLUMNS) * params.scale);
    }
    var top = LOWEST;
    for (var key = begin; key < end; key += KEYS) {
        workgroupBarrier();
        load_keys(key, end, HEADS * COLUMNS + head, lane);
        workgroupBarrier();
        score(first_own);
        workgroupBarrier();
        for (var i = 0u; i < HELD; i++) {
            let column = way + i * WAYS;
            let at = vec4<u32>(key + 4u * column) + vec4<u32>(0u, 1u, 2u, 3u);
            let inside = (at >= vec4<u32>(text.z)) & (at < vec4<u32>(text.w));
            let held = select(vec4<f32>(LOWEST), scores[own * S_PITCH + column], inside);
            top = max(top, max(max(held.x, held.y), max(held.z, held.w)));
        }
    }
    for (var distance = 1u; distance < WAYS; distance <<= 1u) {
        top = max(top, subgroupShuffleXor(top, distance));
    }

    var o = Sums();
    var total = 0.0; // of this invocation's keys
    for (var key = begin; key < end; key += KEYS) {
        workgroupBarrier();
        load_keys(key, end, HEADS * COLUMNS + head, lane);
        load_values(key, end, 2u * HEADS * COLUMNS + head, lane);
        workgroupBarrier();
        score(first_own);
        workgroupBarrier();
        for (var i = 0u; i < HELD; i++) {
            let column = way + i * WAYS;
            let at = vec4<u32>(key + 4u * column) + vec4<u32>(0u, 1u, 2u, 3u);
            let inside = (at >= vec4<u32>(text.z)) & (at < vec4<u32>(text.w));
            let held = scores[own * S_PITCH + column];
            let p = vec4<f16>(select(vec4<f32>(0.0), exp2(held - top), inside));
            // Of the rounded weights, so that they add up to one.
            total += dot(vec4<f32>(p), vec4<f32>(1.0));
            p_tile[own * K_PITCH + column] = p;
        }
        workgroupBarrier();
        weigh(&o, first_own);
    }
    for (var distance = 1u; distance < WAYS; distance <<= 1u) {
        total += subgroupShuffleXor(total, distance);
    }
    // Rows that are no text's attended to nothing and become zero.
    let inverse = select(0.0, 1.0 / total, total > 0.0);
    workgroupBarrier();
    put_all(&o, first_own);
    workgroupBarrier();
    let query = first + own;
    if query < params.rows {
        for (var column = way; column < COLUMNS; column += WAYS) {
            put_vector(query * HEADS * COLUMNS + head + column, scores[own * S_PITCH + column] * inverse);
        }
    }
}
