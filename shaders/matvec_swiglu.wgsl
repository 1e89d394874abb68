// y[c, n] = silu(gate) * up, gate = Σ_k x[c, k] * w[n, k] and up = Σ_k x[c, k] * w[N + n, k], both times the column's
// 1 / rms where x was not yet divided by it. A workgroup has a block of 32 results.
#import matvec
#import squares

struct Params {
    blocks: u32, // N / 32
    eps: f32,
}

@group(0) @binding(15) var<uniform> params: Params;

const OUTPUT: u32 = BEHIND_SQUARES;
#import output

#ifndef COOP_MATRIX
const BLOCK_PITCH: u32 = 33u; // columns begin in different banks
var<workgroup> parts: array<f32, COLUMNS * BLOCK_PITCH>;

const SIDE_BY_SIDE: u32 = WORKGROUP / LANES * (TILE / 2u); // results that are worked on at once
#endif

#ifdef COOP_MATRIX
fn prepare(lane: u32) {
    scales_of_all(params.eps, lane);
}
#endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let own = group.x + group.y * groups.x;
#ifdef COOP_MATRIX
    // 16 gates and their 16 ups.
    if own >= ROWS / 32u {
        return;
    }
    products(16u * own, ROWS / 2u + 16u * own, ROWS - 1u, lane);
    for (var i = lane; i < 4u * COLUMNS; i += WORKGROUP) {
        let c = i / 4u;
        let scale = scale_of(c, params.eps, lane);
        let at = BLOCK_PITCH * c + 4u * (i % 4u);
        let gate = vec4<f32>(parts[at], parts[at + 1u], parts[at + 2u], parts[at + 3u]) * scale;
        let up = vec4<f32>(parts[at + 16u], parts[at + 17u], parts[at + 18u], parts[at + 19u]) * scale;
        put_vector(8u * c * params.blocks + 4u * own + i % 4u, gate / (1.0 + exp(-gate)) * up);
    }
#else
    if own >= ROWS / 64u {
        return;
    }
    if COLUMNS > 1u {
        scales_of_all(params.eps, lane);
    }
    for (var round = 0u; round < 32u / SIDE_BY_SIDE; round++) {
        let turn = round * SIDE_BY_SIDE;
        let n = turn + lane / LANES * (TILE / 2u);
        var rows: array<u32, TILE>;
        for (var t = 0u; t < TILE / 2u; t++) {
            rows[2u * t] = 32u * own + n + t;
            rows[2u * t + 1u] = ROWS / 2u + 32u * own + n + t;
        }
        let sums = dots(rows, lane);
        if COLUMNS > 1u && round == 0u {
            workgroupBarrier();
        }
        for (var c = 0u; c < COLUMNS; c++) {
            let scale = scale_of(c, params.eps, lane);
            for (var t = 0u; t < TILE / 2u; t++) {
                var gates = sums[2u * t];
                var ups = sums[2u * t + 1u];
                let gate = lanes_sum(gates[c], lane) * scale;
                let up = lanes_sum(ups[c], lane) * scale;
                if lane % LANES == 0u {
                    parts[BLOCK_PITCH * c + n + t] = gate / (1.0 + exp(-gate)) * up;
                }
            }
        }
    }
    workgroupBarrier();
#ifdef SPREAD
    for (var round = 0u; round < (32u * COLUMNS + WORKGROUP - 1u) / WORKGROUP; round++) {
        let turn = round * WORKGROUP;
        let c = (lane + turn) / 32u;
        let value = parts[BLOCK_PITCH * min(c, COLUMNS - 1u) + lane % 32u];
        put_spread(c * params.blocks + own, lane % 32u, value, c < COLUMNS);
    }
#else
    if lane < COLUMNS {
        var values: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            let at = BLOCK_PITCH * lane + 4u * i;
            values[i] = vec4<f32>(parts[at], parts[at + 1u], parts[at + 2u], parts[at + 3u]);
        }
        put_block(lane * params.blocks + own, values);
    }
#endif
#endif
}
