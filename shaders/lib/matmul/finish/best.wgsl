// Of every 32 rows of w the best key of their products, of those that are not removed: y[M, y_stride] from y_offset on.
#import matmul/in_order
#import matmul/begin_none
#import top_k/key

@group(0) @binding(2) var<storage, read> removed: array<u32>; // removed[N / 32], a bit a row
const OUTPUT: u32 = 3u;
@group(0) @binding(OUTPUT) var<storage, read_write> y: array<u32>; // y[M, y_stride]

const HELD = (FOURS + SUBGROUP - 1u) / SUBGROUP; // vectors of an invocation
const SHARED = SIDE / 4u; // neighbours that hold a row of a matrix

const_assert GROUPS_K == 1u && PARTS_N * SIDE % GROUP == 0u;

alias Best = array<u32, HELD>;

// The rows of group n / 32 that are no candidates, a bit each.
fn gone(n: u32) -> u32 {
    if n >= params.n {
        return 0xffffffffu;
    }
    return removed[n / GROUP] | select(0u, 0xffffffffu << (params.n - n), params.n - n < GROUP);
}

// The best so far of each row of a matrix, and those of `sum`, whose column c is bit c of `no`.
fn take(best: ptr<function, Best>, sum: MatC, no: u32, lane: u32) {
    let own = lane / SUBGROUP * FOURS;
    subgroupBarrier();
    coopStoreT(sum, &parts[own], SIDE / 4u);
    subgroupBarrier();
    for (var v = 0u; v < HELD; v++) {
        let e = min(lane % SUBGROUP + v * SUBGROUP, FOURS - 1u);
        let four = parts[own + e];
        let bits = no >> (4u * e % SIDE);
        let keys = vec4<u32>(key_of(four.x), key_of(four.y), key_of(four.z), key_of(four.w));
        let counts = (vec4<u32>(bits) & vec4<u32>(1u, 2u, 4u, 8u)) == vec4<u32>(0u);
        let two = max(select(vec2<u32>(0u), keys.xy, counts.xy), select(vec2<u32>(0u), keys.zw, counts.zw));
        (*best)[v] = max((*best)[v], max(two.x, two.y));
    }
}

// Writes the best of each row and begins anew. The group is n / 32.
fn put(best: ptr<function, Best>, m: u32, n: u32, lane: u32) {
    for (var v = 0u; v < HELD; v++) {
        let e = lane % SUBGROUP + v * SUBGROUP;
        var key = (*best)[v];
        for (var i = 1u; i < SHARED; i *= 2u) {
            key = max(key, subgroupShuffleXor(key, i));
        }
        let row = m + 4u * e / SIDE;
        if e < FOURS && e % SHARED == 0u && row < params.m && n < params.n {
            y[row * params.y_stride + params.y_offset + n / GROUP] = key;
        }
        (*best)[v] = 0u;
    }
}

// Matrices j to j + 3, or j and j + 1, of a row of them.
fn take_row(a: MatC, b: MatC, c: MatC, d: MatC, m: u32, n: u32, lane: u32) {
    var best: Best;
    take(&best, a, gone(n), lane);
    take(&best, b, gone(n) >> SIDE, lane);
    if PARTS_N == 2u {
        put(&best, m, n, lane);
        return;
    }
    if 2u * SIDE == GROUP {
        put(&best, m, n, lane);
        take(&best, c, gone(n + GROUP), lane);
        take(&best, d, gone(n + GROUP) >> SIDE, lane);
        put(&best, m, n + GROUP, lane);
    } else {
        take(&best, c, gone(n) >> (2u * SIDE % 32u), lane);
        take(&best, d, gone(n) >> (3u * SIDE % 32u), lane);
        put(&best, m, n, lane);
    }
}

fn write_sums(sums: ptr<function, Sums>, m0: u32, n0: u32, lane: u32) {
    let subgroup = lane / SUBGROUP;
    let m = m0 + subgroup % GROUPS_M * (PARTS_M * SIDE);
    let n = n0 + subgroup / GROUPS_M * (PARTS_N * SIDE);
    take_row((*sums)[0], (*sums)[1], (*sums)[2], (*sums)[3], m, n, lane);
    if PARTS_M > 1u {
        take_row((*sums)[4], (*sums)[5], (*sums)[6], (*sums)[7], m + SIDE, n, lane);
    }
    if PARTS_M > 2u {
        take_row((*sums)[8], (*sums)[9], (*sums)[10], (*sums)[11], m + 2u * SIDE, n, lane);
        take_row((*sums)[12], (*sums)[13], (*sums)[14], (*sums)[15], m + 3u * SIDE, n, lane);
    }
}
