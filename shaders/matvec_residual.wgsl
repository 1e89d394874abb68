// residual[c, first + n] += Σ_k x[c, k] * w[n, k], and at once what the next products take: the new residual times the
// weight of the norm before them, with the sums of its squares, by which they will divide, both of the residual divided by
// HEADROOM: where rows of any size must fit in halves. A workgroup has a block of 32.
#import matvec

struct Params {
    first: u32, // the block of the residual where the rows of w begin
    blocks: u32, // blocks of a row of the residual
}

@group(0) @binding(INPUTS) var<storage, read> norm: array<vec4<f32>>; // norm[N / 4]
@group(0) @binding(INPUTS + 1u) var<storage, read_write> residual: array<f32>; // residual[COLUMNS, N]
@group(0) @binding(15) var<uniform> params: Params;

const OUTPUT: u32 = INPUTS + 2u;
#import output
#import put_squares

#ifndef COOP_MATRIX
const BLOCK_PITCH: u32 = 33u; // columns begin in different banks
var<workgroup> parts: array<f32, COLUMNS * BLOCK_PITCH>;

const SIDE_BY_SIDE: u32 = WORKGROUP / LANES * TILE; // rows that are worked on at once
#endif

#ifdef COOP_MATRIX
fn prepare(lane: u32) {
}
#endif

#ifdef SPREAD
#import spread

const TURNS: u32 = (32u * COLUMNS + WORKGROUP - 1u) / WORKGROUP;
#endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let own = group.x + group.y * groups.x; // block of rows of w
    if own >= ROWS / 32u {
        return;
    }
    let to = params.first + own;
#ifdef SPREAD
    // What is added to and multiplied by at the end is on its way meanwhile.
    var before: array<f32, TURNS>;
    for (var turn = 0u; turn < TURNS; turn++) {
        let c = min((lane + turn * WORKGROUP) / 32u, COLUMNS - 1u);
        before[turn] = residual[(c * params.blocks + to) * 32u + lane % 32u];
    }
    let weight = norm[8u * to + lane % 32u / 4u][lane % 4u] / f32(HEADROOM);
#endif
#ifdef COOP_MATRIX
    products(32u * own, 32u * own + 16u, ROWS - 1u, lane);
#else
    for (var round = 0u; round < 32u / SIDE_BY_SIDE; round++) {
        let turn = round * SIDE_BY_SIDE;
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
#ifdef SPREAD
    for (var turn = 0u; turn < TURNS; turn++) {
        let c = (lane + turn * WORKGROUP) / 32u;
        let counts = c < COLUMNS;
        let value = before[turn] + parts[BLOCK_PITCH * min(c, COLUMNS - 1u) + lane % 32u];
        let small = value / f32(HEADROOM);
        let sum = spread_sum(small * small);
        let index = c * params.blocks + to;
        if counts {
            residual[32u * index + lane % 32u] = value;
        }
        put_spread(index, lane % 32u, value * weight, counts);
        if counts && lane % 32u == 0u {
            put_squares(index, sum);
        }
    }
#else
    for (var turn = 0u; turn < (32u * COLUMNS + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let i = turn * WORKGROUP + lane;
        if (32u * COLUMNS) % WORKGROUP != 0u && i >= 32u * COLUMNS {
            break;
        }
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
            let value = vec4<f32>(parts[at], parts[at + 1u], parts[at + 2u], parts[at + 3u]) / f32(HEADROOM);
            sum += dot(value, value);
            values[i] = value * norm[8u * to + i];
        }
        let index = lane * params.blocks + to;
        put_block(index, values);
        put_squares(index, sum);
    }
#endif
}
