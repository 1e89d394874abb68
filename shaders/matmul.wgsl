// y[m, n] (+)= Σ_k x[m, k] * w[n, k] for many rows m: a workgroup computes a tile of TILE_M x TILE_N, TILE_K of K at a
// time. Both operands go through workgroup memory, w dequantised once; the next loads are under way while the present
// tiles are multiplied.
#import weights

struct Params {
    m: u32, // rows of x
    n: u32, // rows of w
    y_stride: u32,
    y_offset: u32,
    accumulate: u32, // 1: sums are added to what y holds
}

@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>; // w[N, K] packed
@group(0) @binding(15) var<uniform> params: Params;
#import x
// row_of(n0, r): the row of w at row r of a tile that begins at n0. finish(column of y, sum): what is done to a sum before it
// is written, FINISHES where that is anything; y lies behind its inputs, at OUTPUT.
#import finish
#ifdef HALVES
@group(0) @binding(OUTPUT) var<storage, read_write> y: array<f16>; // y[M, y_stride]
#else
@group(0) @binding(OUTPUT) var<storage, read_write> y: array<f32>; // y[M, y_stride]
#endif

// Tiles [TILE_M, TILE_K] and [TILE_N, TILE_K] in vectors of four along K lie in workgroup memory; put_x and put_w know where.
#ifdef COOP_MATRIX
#import matmul/coop
#else
#import matmul/lanes
#endif

const X_VECTORS = TILE_M * TILE_K / 4u;
const W_UNITS = TILE_N * TILE_K / UNIT;
const X_LOADS = (X_VECTORS + WORKGROUP - 1u) / WORKGROUP;
const W_LOADS = (W_UNITS + WORKGROUP - 1u) / WORKGROUP;

// What one invocation loads of a pair of tiles, on its way to workgroup memory.
struct Loaded {
    x: array<XVec, X_LOADS>,
    w: array<Unit, W_LOADS>,
}

// Rows past the end repeat the last one, their results are not written. What lies past K counts as zero in x, so that
// any value does in w.
fn load(m0: u32, n0: u32, k0: u32, lane: u32) -> Loaded {
    var out: Loaded;
    for (var l = 0u; l < X_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if X_VECTORS % WORKGROUP == 0u || at < X_VECTORS {
            let m = min(m0 + at / (TILE_K / 4u), params.m - 1u);
            let i = k0 / 4u + at % (TILE_K / 4u);
            if X_COLS % TILE_K == 0u {
                out.x[l] = x[m * (X_COLS / 4u) + i];
            } else {
                let v = x[m * (X_COLS / 4u) + min(i, X_COLS / 4u - 1u)];
                out.x[l] = select(v, XVec(), i >= X_COLS / 4u);
            }
        }
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if W_UNITS % WORKGROUP == 0u || at < W_UNITS {
            let n = row_of(n0, at / (TILE_K / UNIT));
            let unit = min(k0 / UNIT + at % (TILE_K / UNIT), K / UNIT - 1u);
            out.w[l] = unit_raw(n * ROW_VEC4, unit);
        }
    }
    return out;
}

fn store(loaded: ptr<function, Loaded>, lane: u32) {
    for (var l = 0u; l < X_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if X_VECTORS % WORKGROUP == 0u || at < X_VECTORS {
            put_x(at / (TILE_K / 4u), at % (TILE_K / 4u), x_narrow((*loaded).x[l]));
        }
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let at = lane + l * WORKGROUP;
        if W_UNITS % WORKGROUP == 0u || at < W_UNITS {
            var values = unit_values((*loaded).w[l]);
            for (var j = 0u; j < UNIT / 4u; j++) {
                put_w(at / (TILE_K / UNIT), at % (TILE_K / UNIT) * (UNIT / 4u) + j, Vec4(values[j]));
            }
        }
    }
}

fn write(m: u32, n: u32, sum: f32) {
    if m < params.m && n < columns() {
        let at = m * params.y_stride + params.y_offset + n;
#ifdef HALVES
        y[at] = f16(clamp(finish(params.y_offset + n, sum), -65504.0, 65504.0));
#else
        if params.accumulate != 0u {
            y[at] += sum;
        } else {
            y[at] = finish(params.y_offset + n, sum);
        }
#endif
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    // Tiles that share rows of w are neighbours, so that w comes from memory once.
    let tile = group.x + group.y * groups.x;
    let tiles_m = (params.m + TILE_M - 1u) / TILE_M;
    let m0 = tile % tiles_m * TILE_M;
    let n0 = tile / tiles_m * TILE_N;
    if n0 >= params.n {
        return;
    }
    var sums: Sums;
    var next = load(m0, n0, 0u, lane);
    for (var k0 = 0u; k0 < K; k0 += TILE_K) {
        workgroupBarrier();
        store(&next, lane);
        workgroupBarrier();
        // The last round loads its own tiles again, which costs less than a branch.
        next = load(m0, n0, min(k0 + TILE_K, (K - 1u) / TILE_K * TILE_K), lane);
        multiply(&sums, lane);
    }
#ifdef COOP_MATRIX
#ifndef HALVES
    // Whole tiles go straight to y where matrices may: rows at multiples of 16 bytes.
    let whole = m0 + TILE_M <= params.m && n0 + TILE_N <= params.n;
    if !FINISHES && GROUPS_K == 1u && whole && (params.y_stride | params.y_offset) % 4u == 0u {
        write_whole(&sums, m0, n0, lane);
        return;
    }
#endif
#endif
    write_sums(&sums, m0, n0, lane);
}
