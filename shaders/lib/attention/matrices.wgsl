// Attention by cooperative matrices of SIDE x SIDE. TEAM subgroups, each with SIDE queries of its own, share KEYS keys and
// values at a time in workgroup memory; the next are under way meanwhile. Queries and the sums of outputs stay in
// registers, and what a subgroup writes of its scores no other reads. A row's exponents are relative to `top`, which
// follows the row's maximum only when that is HEADROOM above it: seldom, so that the sums are seldom taken through
// workgroup memory to be rescaled, and p <= 2^HEADROOM fits f16. Matrices are written out instead of in loops: in an array
// they stay in registers only where every index is a constant.
//
// Raw: eight numbers as they are loaded; raw_low, raw_high: four of them as halves.

const WORKGROUP: u32 = TEAM * SUBGROUP;
const QUERIES: u32 = TEAM * SIDE;
const HEADROOM: f32 = 15.0;
const COLUMNS: u32 = HEAD_DIM / 4u; // vectors of four in a head
const UNITS: u32 = HEAD_DIM / 8u; // units of eight halves in a head
const TILES: u32 = HEAD_DIM / SIDE;
const BATCH: u32 = KEYS / SIDE; // matrices of scores
const ROUNDS: u32 = BATCH / SHOWN; // in which they go through `scores`, SHOWN side by side: 1 or 2
const BATCHES: u32 = (TILES + SHOWN - 1u) / SHOWN; // the same of sums
const WAYS: u32 = SUBGROUP / SIDE; // invocations that share a row
const S_COLUMNS: u32 = SHOWN * SIDE / 4u; // vectors of a row of `scores`
const HELD: u32 = S_COLUMNS / WAYS; // an invocation's of them
const LOADS: u32 = (KEYS * UNITS + WORKGROUP - 1u) / WORKGROUP; // of an invocation, of keys as of values
const PARTS: u32 = (QUERIES + 2u * KEYS - 1u) / (2u * KEYS); // of the queries, which go through the tile one after the other
const QUERY_LOADS: u32 = (QUERIES / PARTS * UNITS + WORKGROUP - 1u) / WORKGROUP;
// Rows end in padding, so that eight of them lie in different banks; each is whole units of 16 bytes, which matrices want.
const PITCH: u32 = COLUMNS + 2u;
// Where two invocations share a row of scores, which they read a vector each at a time.
const S_PITCH: u32 = S_COLUMNS + min(WAYS, 2u);
const P_PITCH: u32 = KEYS / 4u + 2u;

alias Sums = array<MatC, 16>;
alias Queries = array<MatA, 16>;
alias Scored = array<MatC, 4>;
alias Loaded = array<Raw, LOADS>;

const_assert ROUNDS == 1u || (BATCH == 2u && SHOWN == 1u);

// No variable here is smaller than 16 bytes: drivers lay them out back to back, and matrices are loaded from multiples of it.
var<workgroup> tile: array<vec4<f16>, 2u * KEYS * PITCH>; // KEYS keys, then as many values; before them the queries
var<workgroup> scores: array<vec4<f32>, QUERIES * S_PITCH>;
var<workgroup> weights: array<vec4<f16>, QUERIES * P_PITCH>;

// naga 30 emits what a store's arguments compute after the store itself, hence the names for them.
fn put_matrix(sum: MatC, own: u32, tile: u32) {
    let at = own + tile % SHOWN * (SIDE / 4u);
    coopStoreT(sum, &scores[at], S_PITCH);
}

fn get_matrix(own: u32, tile: u32) -> MatC {
    let at = own + tile % SHOWN * (SIDE / 4u);
    return coopLoadT<MatC>(&scores[at], S_PITCH);
}

fn store_batch(o: ptr<function, Sums>, own: u32, batch: u32) {
    if TILES > 0u && batch == 0u / SHOWN {
        put_matrix((*o)[0], own, 0u);
    }
    if TILES > 1u && batch == 1u / SHOWN {
        put_matrix((*o)[1], own, 1u);
    }
    if TILES > 2u && batch == 2u / SHOWN {
        put_matrix((*o)[2], own, 2u);
    }
    if TILES > 3u && batch == 3u / SHOWN {
        put_matrix((*o)[3], own, 3u);
    }
    if TILES > 4u && batch == 4u / SHOWN {
        put_matrix((*o)[4], own, 4u);
    }
    if TILES > 5u && batch == 5u / SHOWN {
        put_matrix((*o)[5], own, 5u);
    }
    if TILES > 6u && batch == 6u / SHOWN {
        put_matrix((*o)[6], own, 6u);
    }
    if TILES > 7u && batch == 7u / SHOWN {
        put_matrix((*o)[7], own, 7u);
    }
    if TILES > 8u && batch == 8u / SHOWN {
        put_matrix((*o)[8], own, 8u);
    }
    if TILES > 9u && batch == 9u / SHOWN {
        put_matrix((*o)[9], own, 9u);
    }
    if TILES > 10u && batch == 10u / SHOWN {
        put_matrix((*o)[10], own, 10u);
    }
    if TILES > 11u && batch == 11u / SHOWN {
        put_matrix((*o)[11], own, 11u);
    }
    if TILES > 12u && batch == 12u / SHOWN {
        put_matrix((*o)[12], own, 12u);
    }
    if TILES > 13u && batch == 13u / SHOWN {
        put_matrix((*o)[13], own, 13u);
    }
    if TILES > 14u && batch == 14u / SHOWN {
        put_matrix((*o)[14], own, 14u);
    }
    if TILES > 15u && batch == 15u / SHOWN {
        put_matrix((*o)[15], own, 15u);
    }
}

fn load_batch(o: ptr<function, Sums>, own: u32, batch: u32) {
    if TILES > 0u && batch == 0u / SHOWN {
        (*o)[0] = get_matrix(own, 0u);
    }
    if TILES > 1u && batch == 1u / SHOWN {
        (*o)[1] = get_matrix(own, 1u);
    }
    if TILES > 2u && batch == 2u / SHOWN {
        (*o)[2] = get_matrix(own, 2u);
    }
    if TILES > 3u && batch == 3u / SHOWN {
        (*o)[3] = get_matrix(own, 3u);
    }
    if TILES > 4u && batch == 4u / SHOWN {
        (*o)[4] = get_matrix(own, 4u);
    }
    if TILES > 5u && batch == 5u / SHOWN {
        (*o)[5] = get_matrix(own, 5u);
    }
    if TILES > 6u && batch == 6u / SHOWN {
        (*o)[6] = get_matrix(own, 6u);
    }
    if TILES > 7u && batch == 7u / SHOWN {
        (*o)[7] = get_matrix(own, 7u);
    }
    if TILES > 8u && batch == 8u / SHOWN {
        (*o)[8] = get_matrix(own, 8u);
    }
    if TILES > 9u && batch == 9u / SHOWN {
        (*o)[9] = get_matrix(own, 9u);
    }
    if TILES > 10u && batch == 10u / SHOWN {
        (*o)[10] = get_matrix(own, 10u);
    }
    if TILES > 11u && batch == 11u / SHOWN {
        (*o)[11] = get_matrix(own, 11u);
    }
    if TILES > 12u && batch == 12u / SHOWN {
        (*o)[12] = get_matrix(own, 12u);
    }
    if TILES > 13u && batch == 13u / SHOWN {
        (*o)[13] = get_matrix(own, 13u);
    }
    if TILES > 14u && batch == 14u / SHOWN {
        (*o)[14] = get_matrix(own, 14u);
    }
    if TILES > 15u && batch == 15u / SHOWN {
        (*o)[15] = get_matrix(own, 15u);
    }
}

fn load_queries(q: ptr<function, Queries>, at: u32) {
    (*q)[0] = coopLoadT<MatA>(&tile[at + 0u * (SIDE / 4u)], PITCH);
    if TILES > 1u {
        (*q)[1] = coopLoadT<MatA>(&tile[at + 1u * (SIDE / 4u)], PITCH);
    }
    if TILES > 2u {
        (*q)[2] = coopLoadT<MatA>(&tile[at + 2u * (SIDE / 4u)], PITCH);
    }
    if TILES > 3u {
        (*q)[3] = coopLoadT<MatA>(&tile[at + 3u * (SIDE / 4u)], PITCH);
    }
    if TILES > 4u {
        (*q)[4] = coopLoadT<MatA>(&tile[at + 4u * (SIDE / 4u)], PITCH);
    }
    if TILES > 5u {
        (*q)[5] = coopLoadT<MatA>(&tile[at + 5u * (SIDE / 4u)], PITCH);
    }
    if TILES > 6u {
        (*q)[6] = coopLoadT<MatA>(&tile[at + 6u * (SIDE / 4u)], PITCH);
    }
    if TILES > 7u {
        (*q)[7] = coopLoadT<MatA>(&tile[at + 7u * (SIDE / 4u)], PITCH);
    }
    if TILES > 8u {
        (*q)[8] = coopLoadT<MatA>(&tile[at + 8u * (SIDE / 4u)], PITCH);
    }
    if TILES > 9u {
        (*q)[9] = coopLoadT<MatA>(&tile[at + 9u * (SIDE / 4u)], PITCH);
    }
    if TILES > 10u {
        (*q)[10] = coopLoadT<MatA>(&tile[at + 10u * (SIDE / 4u)], PITCH);
    }
    if TILES > 11u {
        (*q)[11] = coopLoadT<MatA>(&tile[at + 11u * (SIDE / 4u)], PITCH);
    }
    if TILES > 12u {
        (*q)[12] = coopLoadT<MatA>(&tile[at + 12u * (SIDE / 4u)], PITCH);
    }
    if TILES > 13u {
        (*q)[13] = coopLoadT<MatA>(&tile[at + 13u * (SIDE / 4u)], PITCH);
    }
    if TILES > 14u {
        (*q)[14] = coopLoadT<MatA>(&tile[at + 14u * (SIDE / 4u)], PITCH);
    }
    if TILES > 15u {
        (*q)[15] = coopLoadT<MatA>(&tile[at + 15u * (SIDE / 4u)], PITCH);
    }
}

fn score(q: ptr<function, Queries>, scored: ptr<function, Scored>) {
    var s: Scored;
    {
        s[0] = coopMultiplyAdd((*q)[0], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 0u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[0], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 0u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[0], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 0u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[0], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 0u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 1u {
        s[0] = coopMultiplyAdd((*q)[1], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 1u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[1], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 1u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[1], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 1u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[1], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 1u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 2u {
        s[0] = coopMultiplyAdd((*q)[2], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 2u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[2], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 2u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[2], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 2u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[2], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 2u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 3u {
        s[0] = coopMultiplyAdd((*q)[3], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 3u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[3], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 3u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[3], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 3u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[3], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 3u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 4u {
        s[0] = coopMultiplyAdd((*q)[4], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 4u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[4], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 4u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[4], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 4u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[4], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 4u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 5u {
        s[0] = coopMultiplyAdd((*q)[5], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 5u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[5], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 5u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[5], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 5u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[5], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 5u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 6u {
        s[0] = coopMultiplyAdd((*q)[6], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 6u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[6], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 6u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[6], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 6u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[6], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 6u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 7u {
        s[0] = coopMultiplyAdd((*q)[7], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 7u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[7], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 7u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[7], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 7u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[7], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 7u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 8u {
        s[0] = coopMultiplyAdd((*q)[8], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 8u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[8], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 8u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[8], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 8u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[8], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 8u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 9u {
        s[0] = coopMultiplyAdd((*q)[9], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 9u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[9], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 9u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[9], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 9u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[9], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 9u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 10u {
        s[0] = coopMultiplyAdd((*q)[10], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 10u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[10], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 10u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[10], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 10u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[10], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 10u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 11u {
        s[0] = coopMultiplyAdd((*q)[11], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 11u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[11], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 11u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[11], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 11u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[11], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 11u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 12u {
        s[0] = coopMultiplyAdd((*q)[12], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 12u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[12], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 12u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[12], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 12u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[12], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 12u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 13u {
        s[0] = coopMultiplyAdd((*q)[13], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 13u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[13], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 13u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[13], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 13u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[13], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 13u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 14u {
        s[0] = coopMultiplyAdd((*q)[14], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 14u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[14], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 14u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[14], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 14u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[14], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 14u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    if TILES > 15u {
        s[0] = coopMultiplyAdd((*q)[15], coopLoad<MatB>(&tile[0u * SIDE * PITCH + 15u * (SIDE / 4u)], PITCH), s[0]);
        if BATCH > 1u {
            s[1] = coopMultiplyAdd((*q)[15], coopLoad<MatB>(&tile[1u * SIDE * PITCH + 15u * (SIDE / 4u)], PITCH), s[1]);
        }
        if BATCH > 2u {
            s[2] = coopMultiplyAdd((*q)[15], coopLoad<MatB>(&tile[2u * SIDE * PITCH + 15u * (SIDE / 4u)], PITCH), s[2]);
        }
        if BATCH > 3u {
            s[3] = coopMultiplyAdd((*q)[15], coopLoad<MatB>(&tile[3u * SIDE * PITCH + 15u * (SIDE / 4u)], PITCH), s[3]);
        }
    }
    *scored = s;
}

fn weigh(o: ptr<function, Sums>, own: u32) {
    for (var k = 0u; k < BATCH; k++) {
        let p = coopLoadT<MatA>(&weights[own + k * (SIDE / 4u)], P_PITCH);
        let v = (KEYS + k * SIDE) * PITCH;
        (*o)[0] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 0u * (SIDE / 4u)], PITCH), (*o)[0]);
        if TILES > 1u {
            (*o)[1] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 1u * (SIDE / 4u)], PITCH), (*o)[1]);
        }
        if TILES > 2u {
            (*o)[2] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 2u * (SIDE / 4u)], PITCH), (*o)[2]);
        }
        if TILES > 3u {
            (*o)[3] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 3u * (SIDE / 4u)], PITCH), (*o)[3]);
        }
        if TILES > 4u {
            (*o)[4] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 4u * (SIDE / 4u)], PITCH), (*o)[4]);
        }
        if TILES > 5u {
            (*o)[5] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 5u * (SIDE / 4u)], PITCH), (*o)[5]);
        }
        if TILES > 6u {
            (*o)[6] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 6u * (SIDE / 4u)], PITCH), (*o)[6]);
        }
        if TILES > 7u {
            (*o)[7] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 7u * (SIDE / 4u)], PITCH), (*o)[7]);
        }
        if TILES > 8u {
            (*o)[8] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 8u * (SIDE / 4u)], PITCH), (*o)[8]);
        }
        if TILES > 9u {
            (*o)[9] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 9u * (SIDE / 4u)], PITCH), (*o)[9]);
        }
        if TILES > 10u {
            (*o)[10] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 10u * (SIDE / 4u)], PITCH), (*o)[10]);
        }
        if TILES > 11u {
            (*o)[11] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 11u * (SIDE / 4u)], PITCH), (*o)[11]);
        }
        if TILES > 12u {
            (*o)[12] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 12u * (SIDE / 4u)], PITCH), (*o)[12]);
        }
        if TILES > 13u {
            (*o)[13] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 13u * (SIDE / 4u)], PITCH), (*o)[13]);
        }
        if TILES > 14u {
            (*o)[14] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 14u * (SIDE / 4u)], PITCH), (*o)[14]);
        }
        if TILES > 15u {
            (*o)[15] = coopMultiplyAdd(p, coopLoadT<MatB>(&tile[v + 15u * (SIDE / 4u)], PITCH), (*o)[15]);
        }
    }
}

// Keys go to row 0 of the tile, values to row KEYS.
fn keep(loaded: Loaded, first: u32, lane: u32) {
    for (var i = 0u; i < LOADS; i++) {
        let at = lane + i * WORKGROUP;
        if KEYS * UNITS % WORKGROUP == 0u || at < KEYS * UNITS {
            let to = (first + at / UNITS) * PITCH + 2u * (at % UNITS);
            tile[to] = raw_low(loaded[i]);
            tile[to + 1u] = raw_high(loaded[i]);
        }
    }
}

// What a row, shared by WAYS invocations, has attended to.
struct Softmax {
    top: f32,
    total: f32, // of this invocation's keys
}

// The row whose softmax an invocation shares, and its share.
fn row_of(lane: u32) -> u32 {
    return lane / WAYS;
}

fn way_of(lane: u32) -> u32 {
    return lane % WAYS;
}

// The first row of an invocation's subgroup.
fn first_of(lane: u32) -> u32 {
    return lane / SUBGROUP * SIDE;
}

// Attends to the keys in the tile, the first of which is `key`; those before `begin` and from `end` on are not the row's.
fn attend(q: ptr<function, Queries>, o: ptr<function, Sums>, softmax: ptr<function, Softmax>, key: u32, begin: u32, end: u32,
          lane: u32) {
    let own = row_of(lane);
    let way = way_of(lane);
    let first_own = first_of(lane);
    var scored: Scored;
    score(q, &scored);
    var held: array<vec4<f32>, ROUNDS * HELD>;
    put_matrix(scored[0], first_own * S_PITCH, 0u);
    if SHOWN > 1u {
        put_matrix(scored[1], first_own * S_PITCH, 1u);
    }
    if SHOWN > 2u {
        put_matrix(scored[2], first_own * S_PITCH, 2u);
        put_matrix(scored[3], first_own * S_PITCH, 3u);
    }
    subgroupBarrier();
    for (var i = 0u; i < HELD; i++) {
        held[i] = scores[own * S_PITCH + way + i * WAYS];
    }
    if ROUNDS > 1u {
        subgroupBarrier();
        put_matrix(scored[1], first_own * S_PITCH, 0u);
        subgroupBarrier();
        for (var i = 0u; i < HELD; i++) {
            held[(ROUNDS - 1u) * HELD + i] = scores[own * S_PITCH + way + i * WAYS];
        }
    }
    var top = (*softmax).top;
    var best = LOWEST;
    // Of prompts and long texts most tiles are wholly those of all rows.
    if !subgroupAll((key >= begin) & (key + KEYS <= end)) {
        for (var i = 0u; i < ROUNDS * HELD; i++) {
            let at = vec4<u32>(key + 4u * (way + i * WAYS)) + vec4<u32>(0u, 1u, 2u, 3u);
            let inside = (at >= vec4<u32>(begin)) & (at < vec4<u32>(end));
            held[i] = select(vec4<f32>(LOWEST), held[i], inside);
        }
    }
    for (var i = 0u; i < ROUNDS * HELD; i++) {
        best = max(best, max(max(held[i].x, held[i].y), max(held[i].z, held[i].w)));
    }
    for (var distance = 1u; distance < WAYS; distance <<= 1u) {
        best = max(best, subgroupShuffleXor(best, distance));
    }
    // Where one row needs it all that have grown are rescaled, so that it is seldom done again.
    let full = subgroupAny(top > LOWEST && best > top + HEADROOM);
    var rescale = 1.0;
    if best > top && (full || top == LOWEST) {
        rescale = select(exp2(top - best), 1.0, top == LOWEST);
        top = best;
    }
    var total = (*softmax).total * rescale;
    // Where a row has no key yet, 2^LOWEST is 0 and not 2^0.
    let base = select(top, 0.0, top == LOWEST);
    for (var i = 0u; i < ROUNDS * HELD; i++) {
        let p = vec4<f16>(exp2(held[i] - base));
        // Of the rounded weights, so that they add up to one.
        total += dot(vec4<f32>(p), vec4<f32>(1.0));
        weights[own * P_PITCH + way + i * WAYS] = p;
    }
    (*softmax).top = top;
    (*softmax).total = total;
    subgroupBarrier();
    if subgroupAny(rescale != 1.0) {
        for (var batch = 0u; batch < BATCHES; batch++) {
            store_batch(o, first_own * S_PITCH, batch);
            subgroupBarrier();
            for (var i = 0u; i < HELD; i++) {
                scores[own * S_PITCH + way + i * WAYS] *= rescale;
            }
            subgroupBarrier();
            load_batch(o, first_own * S_PITCH, batch);
            subgroupBarrier();
        }
    }
    weigh(o, first_own * P_PITCH);
}

// Where a workgroup's outputs go.
struct Place {
    first: u32, // its first row
    head: u32,
}

// Writes the outputs of a subgroup's rows, of which `count` of the workgroup count: neighbours write neighbouring vectors. place_of(place,
// row): the first vector of the workgroup's row. A row that attended to nothing becomes zero.
fn put_rows(o: ptr<function, Sums>, softmax: Softmax, place: Place, count: u32, lane: u32) {
    let first_own = first_of(lane);
    var total = softmax.total;
    for (var distance = 1u; distance < WAYS; distance <<= 1u) {
        total += subgroupShuffleXor(total, distance);
    }
    let inverse = select(0.0, 1.0 / total, total > 0.0);
    for (var batch = 0u; batch < BATCHES; batch++) {
        subgroupBarrier();
        store_batch(o, first_own * S_PITCH, batch);
        subgroupBarrier();
        for (var i = 0u; i < HELD; i++) {
            let at = lane % SUBGROUP + i * SUBGROUP;
            let row = at / S_COLUMNS;
            let column = batch * S_COLUMNS + at % S_COLUMNS;
            let factor = subgroupShuffle(inverse, row * WAYS);
            if column < COLUMNS && first_own + row < count {
                put_vector(place_of(place, first_own + row) + column, scores[(first_own + row) * S_PITCH + at % S_COLUMNS] * factor);
            }
        }
    }
}
