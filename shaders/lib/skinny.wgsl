// 32 rows of w times up to 32 columns of x by cooperative matrices of 16. Each subgroup takes every SUBGROUPS-th piece of
// TILE_K along K: it dequantises its pieces of the rows into workgroup memory of its own and multiplies them by x, which
// lies in tiles as the matrices want it. No subgroup waits for another before the sums of all are added.
#import weights

@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>; // w[N, K] packed
@group(0) @binding(1) var<storage, read> x: array<vec4<f16>>; // x[K / 16, TILE_M, 4]
const INPUTS: u32 = 2u; // the next binding

const SUBGROUPS_AT_WORK: u32 = WORKGROUP / SUBGROUP;
const PITCH: u32 = TILE_K / 4u + 2u; // 16 bytes more than a row, so that eight rows lie in different banks
const PIECES: u32 = TILE_K / UNIT; // of a row
const LOADS: u32 = 32u * PIECES / SUBGROUP; // of an invocation
const BLOCK_PITCH: u32 = 33u;
const MATRICES: u32 = SUBGROUPS_AT_WORK * 256u;
const PRODUCTS: u32 = TILE_M * BLOCK_PITCH;

alias Sums = array<MatC, 4>; // rows 16 i of x, rows 16 j of w at 2 i + j
alias Loaded = array<Unit, LOADS>;

var<workgroup> slab: array<vec4<f16>, SUBGROUPS_AT_WORK * 32u * PITCH>;
// First a matrix of each subgroup, then all products.
var<workgroup> parts: array<f32, select(PRODUCTS, MATRICES, MATRICES > PRODUCTS)>;
var<workgroup> scales: array<f32, TILE_M>;

// Row i of 32: 16 from one place, 16 from another; none past the last.
fn row_at(first: u32, second: u32, last: u32, i: u32) -> u32 {
    return min(select(second + i - 16u, first + i, i < 16u), last);
}

fn load(first: u32, second: u32, last: u32, k: u32, l: u32) -> Loaded {
    var out: Loaded;
    for (var i = 0u; i < LOADS; i++) {
        let at = l + i * SUBGROUP;
        let row = row_at(first, second, last, at / PIECES);
        out[i] = unit_raw(row * ROW_VEC4, min(k / UNIT + at % PIECES, K / UNIT - 1u));
    }
    return out;
}

fn multiply(sums: ptr<function, Sums>, k: u32, own: u32) {
    for (var i = 0u; i < TILE_K / 16u; i++) {
        let at = (k / 16u + i) * TILE_M * 4u;
        let a = coopLoadT<MatA>(&x[at], 4u);
        let b0 = coopLoad<MatB>(&slab[own + 4u * i], PITCH);
        let b1 = coopLoad<MatB>(&slab[own + 16u * PITCH + 4u * i], PITCH);
        (*sums)[0] = coopMultiplyAdd(a, b0, (*sums)[0]);
        (*sums)[1] = coopMultiplyAdd(a, b1, (*sums)[1]);
        if TILE_M > 16u {
            let c = coopLoadT<MatA>(&x[at + 64u], 4u);
            (*sums)[2] = coopMultiplyAdd(c, b0, (*sums)[2]);
            (*sums)[3] = coopMultiplyAdd(c, b1, (*sums)[3]);
        }
    }
}

// The sum of the subgroups' matrices, an element an invocation and turn.
fn gather(sum: MatC, lane: u32) -> array<f32, GATHERED> {
    workgroupBarrier();
    coopStoreT(sum, &parts[lane / SUBGROUP * 256u], 16u);
    workgroupBarrier();
    var out: array<f32, GATHERED>;
    for (var i = 0u; i < GATHERED; i++) {
        let e = lane + i * WORKGROUP;
        if e < 256u {
            for (var s = 0u; s < SUBGROUPS_AT_WORK; s++) {
                out[i] += parts[256u * s + e];
            }
        }
    }
    return out;
}
const GATHERED: u32 = (256u + WORKGROUP - 1u) / WORKGROUP;

fn keep(values: array<f32, GATHERED>, i: u32, j: u32, lane: u32) {
    for (var v = 0u; v < GATHERED; v++) {
        let e = lane + v * WORKGROUP;
        if e < 256u {
            parts[BLOCK_PITCH * (16u * i + e / 16u) + 16u * j + e % 16u] = values[v];
        }
    }
}

// The products of 32 rows, column m and row n at BLOCK_PITCH m + n of `parts`. The kernel says what there is to prepare.
fn products(first: u32, second: u32, last: u32, lane: u32) {
    let l = lane % SUBGROUP;
    let subgroup = lane / SUBGROUP;
    let own = subgroup * 32u * PITCH;
    let step = SUBGROUPS_AT_WORK * TILE_K;
    var sums: Sums;
    var next = load(first, second, last, subgroup * TILE_K, l);
    // While the first weights are on their way.
    prepare(lane);
    for (var k0 = 0u; k0 < K; k0 += step) {
        let k = k0 + subgroup * TILE_K;
        for (var i = 0u; i < LOADS; i++) {
            let at = l + i * SUBGROUP;
            let to = own + at / PIECES * PITCH + at % PIECES * (UNIT / 4u);
            var values = unit_halves(next[i]);
            for (var j = 0u; j < UNIT / 4u; j++) {
                // A piece past the end counts as zero.
                slab[to + j] = select(values[j], vec4<f16>(0h), K % step != 0u && k >= K);
            }
        }
        subgroupBarrier();
        next = load(first, second, last, min(k + step, K - TILE_K), l);
        multiply(&sums, min(k, K - TILE_K), own);
        subgroupBarrier();
    }
    let s0 = gather(sums[0], lane);
    let s1 = gather(sums[1], lane);
    var s2: array<f32, GATHERED>;
    var s3: array<f32, GATHERED>;
    if TILE_M > 16u {
        s2 = gather(sums[2], lane);
        s3 = gather(sums[3], lane);
    }
    workgroupBarrier();
    keep(s0, 0u, 0u, lane);
    keep(s1, 0u, 1u, lane);
    if TILE_M > 16u {
        keep(s2, 1u, 0u, lane);
        keep(s3, 1u, 1u, lane);
    }
    workgroupBarrier();
}
