// y[c, n] = silu(gate) * up, gate = Σ_k x[c, k] * w[n, k] and up = Σ_k x[c, k] * w[N + n, k], both times the column's
// 1 / rms where x was not yet divided by it. A workgroup has a block of 32 results.
#import matvec
#import squares

struct Params {
    blocks: u32, // N / 32
    eps: f32,
}

@group(1) @binding(0) var<uniform> params: Params;

const OUTPUT: u32 = INPUTS + 1u;
#import output

var<workgroup> block: array<f32, COLUMNS * 32u>;

const SIDE_BY_SIDE: u32 = WORKGROUP / LANES * (TILE / 2u); // results that are worked on at once

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let own = group.x + group.y * groups.x;
    if own >= ROWS / 64u {
        return;
    }
    for (var turn = 0u; turn < 32u; turn += SIDE_BY_SIDE) {
        let n = turn + lane / LANES * (TILE / 2u);
        var rows: array<u32, TILE>;
        for (var t = 0u; t < TILE / 2u; t++) {
            rows[2u * t] = 32u * own + n + t;
            rows[2u * t + 1u] = ROWS / 2u + 32u * own + n + t;
        }
        let sums = dots(rows, lane);
        for (var c = 0u; c < COLUMNS; c++) {
            let scale = inverse_rms(c, params.eps, lane);
            for (var t = 0u; t < TILE / 2u; t++) {
                var gates = sums[2u * t];
                var ups = sums[2u * t + 1u];
                let gate = lanes_sum(gates[c], lane) * scale;
                let up = lanes_sum(ups[c], lane) * scale;
                if lane % LANES == 0u {
                    block[32u * c + n + t] = gate / (1.0 + exp(-gate)) * up;
                }
            }
        }
    }
    workgroupBarrier();
    if lane < COLUMNS {
        var values: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            let at = 32u * lane + 4u * i;
            values[i] = vec4<f32>(block[at], block[at + 1u], block[at + 2u], block[at + 3u]);
        }
        put_block(lane * params.blocks + own, values);
    }
}
