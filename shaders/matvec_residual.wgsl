// residual[c, first + n] += Σ_k x[c, k] * w[n, k], and at once what the next products take: the new residual times the
// weight of the norm before them, with the sums of its squares, by which they will divide. A workgroup has a block of 32.
#import matvec

struct Params {
    first: u32, // the block of the residual where the rows of w begin
    blocks: u32, // blocks of a row of the residual
}

@group(0) @binding(INPUTS) var<storage, read> norm: array<vec4<f32>>; // norm[N / 4]
@group(0) @binding(INPUTS + 1u) var<storage, read_write> residual: array<f32>; // residual[COLUMNS, N]
@group(0) @binding(INPUTS + 2u) var<storage, read_write> squares: array<f32>; // squares[COLUMNS, N / 32]
@group(1) @binding(0) var<uniform> params: Params;

const OUTPUT: u32 = INPUTS + 3u;
#import output

#ifndef COOP_MATRIX
const BLOCK_PITCH: u32 = 33u; // columns begin in different banks
var<workgroup> parts: array<f32, COLUMNS * BLOCK_PITCH>;

const SIDE_BY_SIDE: u32 = WORKGROUP / LANES * TILE; // rows that are worked on at once
#endif

#ifdef COOP_MATRIX
fn prepare(lane: u32) {
}
#endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let own = group.x + group.y * groups.x; // block of rows of w
    if own >= ROWS / 32u {
        return;
    }
#ifdef COOP_MATRIX
    products(32u * own, 32u * own + 16u, ROWS - 1u, lane);
#else
    for (var turn = 0u; turn < 32u; turn += SIDE_BY_SIDE) {
        let n = turn + lane / LANES * TILE;
        var rows: array<u32, TILE>;
        for (var t = 0u; t < TILE; t++) {
            rows[t] = 32u * own + n + t;
        }
        let sums = dots(rows, lane);
        for (var t = 0u; t < TILE; t++) {
            var tile = sums[t];
            for (var c = 0u; c < COLUMNS; c++) {
                let sum = lanes_sum(tile[c], lane);
                if lane % LANES == 0u {
                    parts[BLOCK_PITCH * c + n + t] = sum;
                }
            }
        }
    }
    workgroupBarrier();
#endif
    let to = params.first + own;
    for (var i = lane; i < 32u * COLUMNS; i += WORKGROUP) {
        let at = (i / 32u * params.blocks + to) * 32u + i % 32u;
        let part = BLOCK_PITCH * (i / 32u) + i % 32u;
        let value = residual[at] + parts[part];
        residual[at] = value;
        parts[part] = value;
    }
    workgroupBarrier();
    if lane < COLUMNS {
        var values: array<vec4<f32>, 8>;
        var sum = 0.0;
        for (var i = 0u; i < 8u; i++) {
            let at = BLOCK_PITCH * lane + 4u * i;
            let value = vec4<f32>(parts[at], parts[at + 1u], parts[at + 2u], parts[at + 3u]);
            sum += dot(value, value);
            values[i] = value * norm[8u * to + i];
        }
        let index = lane * params.blocks + to;
        squares[index] = sum;
        put_block(index, values);
    }
}
