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
#ifdef COOP_MATRIX
@group(0) @binding(OUTPUT) var<storage, read_write> y: array<vec4<f16>>; // y[M, y_stride / 4]
#else
@group(0) @binding(OUTPUT) var<storage, read_write> y: array<f16>; // y[M, y_stride]
#endif
#else
@group(0) @binding(OUTPUT) var<storage, read_write> y: array<f32>; // y[M, y_stride]
#endif

// Tiles [TILE_M, TILE_K] and [TILE_N, TILE_K] lie in workgroup memory. load: an invocation's share of the next; store: puts it
// there; multiply: adds their product to an invocation's share of the sums.
#ifdef DOT4
#import matmul/bytes
#else
#import matmul/floats
#ifdef COOP_MATRIX
#import matmul/coop
#else
#import matmul/lanes
#endif
#endif

#ifdef HALVES
#ifdef COOP_MATRIX
#import narrow

// Columns n to n + 3: halves are written in multiples of four columns.
fn write_four(m: u32, n: u32, sums: vec4<f32>) {
    if m < params.m && n < columns() {
        let column = params.y_offset + n;
        let out = vec4<f32>(finish(column, sums.x), finish(column + 1u, sums.y), finish(column + 2u, sums.z),
                            finish(column + 3u, sums.w));
        y[(m * params.y_stride + column) / 4u] = narrow(out);
    }
}
#else
fn write(m: u32, n: u32, sum: f32) {
    if m < params.m && n < columns() {
        let column = params.y_offset + n;
        y[m * params.y_stride + column] = f16(clamp(finish(column, sum), -65504.0, 65504.0));
    }
}
#endif
#else
fn write(m: u32, n: u32, sum: f32) {
    if m < params.m && n < columns() {
        let column = params.y_offset + n;
        let at = m * params.y_stride + column;
        if params.accumulate != 0u {
            y[at] += sum;
        } else {
            y[at] = finish(column, sum);
        }
    }
}

#ifdef COOP_MATRIX
fn write_four(m: u32, n: u32, sums: vec4<f32>) {
    write(m, n, sums.x);
    write(m, n + 1u, sums.y);
    write(m, n + 2u, sums.z);
    write(m, n + 3u, sums.w);
}
#endif
#endif

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
    for (var round = 0u; round < (K + TILE_K - 1u) / TILE_K; round++) {
        let k0 = round * TILE_K;
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
