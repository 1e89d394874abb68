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
// row_of(n0, r): the row of w at row r of a tile that begins at n0. Where sums go, y among it, lies behind inputs of its own;
// with cooperative matrices write_sums(sums, m0, n0, lane), too, and begin(column of y), what sums begin with where BEGINS.
#import finish

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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    // Neighbours share rows of the larger factor, which comes from memory once then.
    let tile = group.x + group.y * groups.x;
    let tiles_m = (params.m + TILE_M - 1u) / TILE_M;
    let tiles_n = (params.n + TILE_N - 1u) / TILE_N;
    let x_larger = params.m > params.n;
    let along_m = select(tile % tiles_m, tile / tiles_n, x_larger);
    let along_n = select(tile / tiles_m, tile % tiles_n, x_larger);
    let m0 = along_m * TILE_M;
    let n0 = along_n * TILE_N;
    if along_n >= tiles_n || along_m >= tiles_m {
        return;
    }
    var sums: Sums;
    var next = load(m0, n0, 0u, lane);
#ifdef COOP_MATRIX
    begin_sums(&sums, n0, lane);
#endif
    for (var round = 0u; round < (K + TILE_K - 1u) / TILE_K; round++) {
        let k0 = round * TILE_K;
        workgroupBarrier();
        store(&next, lane);
        workgroupBarrier();
        // The last round loads its own tiles again, which costs less than a branch.
        next = load(m0, n0, min(k0 + TILE_K, (K - 1u) / TILE_K * TILE_K), lane);
        multiply(&sums, lane);
    }
    write_sums(&sums, m0, n0, lane);
}
