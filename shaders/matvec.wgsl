// y[c, n] (+)= Σ_k x[c, k] * w[n, k] for a few columns c, times the column's 1 / rms where x was not yet divided by it.
#import matvec
#import squares

struct Params {
    rows: u32, // rows of w
    y_stride: u32,
    y_offset: u32,
    eps: f32,
}

@group(0) @binding(BEHIND_SQUARES) var<storage, read_write> y: array<f32>; // y[COLUMNS, y_stride]
@group(0) @binding(15) var<uniform> params: Params;

#ifdef COOP_MATRIX
fn prepare(lane: u32) {
    scales_of_all(params.eps, lane);
}
#endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
#ifdef COOP_MATRIX
    let first = (group.x + group.y * groups.x) * 32u;
    if first >= params.rows {
        return;
    }
    products(first, first + 16u, params.rows - 1u, lane);
    for (var i = lane; i < 32u * COLUMNS; i += WORKGROUP) {
        let c = i / 32u;
        let n = first + i % 32u;
        if n < params.rows {
            let sum = parts[BLOCK_PITCH * c + i % 32u] * scale_of(c, params.eps, lane);
            let at = c * params.y_stride + params.y_offset + n;
            if ACCUMULATE {
                y[at] += sum;
            } else {
                y[at] = sum;
            }
        }
    }
#else
    let first = ((group.x + group.y * groups.x) * (WORKGROUP / LANES) + lane / LANES) * TILE;
    var rows: array<u32, TILE>;
    for (var t = 0u; t < TILE; t++) {
        // Rows past the end repeat the last one; their sums are not written.
        rows[t] = min(first + t, params.rows - 1u);
    }
    if COLUMNS > 1u {
        scales_of_all(params.eps, lane);
    }
    let sums = dots(rows, lane);
    if COLUMNS > 1u {
        workgroupBarrier();
    }
    for (var c = 0u; c < COLUMNS; c++) {
        let scale = scale_of(c, params.eps, lane);
        for (var t = 0u; t < TILE; t++) {
            var tile = sums[t];
            let sum = lanes_sum(tile[c], lane) * scale;
            if lane % LANES == 0u && first + t < params.rows {
                let at = c * params.y_stride + params.y_offset + first + t;
                if ACCUMULATE {
                    y[at] += sum;
                } else {
                    y[at] = sum;
                }
            }
        }
    }
#endif
}
