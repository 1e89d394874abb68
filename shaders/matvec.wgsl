// y[c, n] = Σ_k x[c, k] * w[n, k] for a few columns c: each weight is read once and used for all of them. LANES
// invocations share TILE rows of w; each takes every LANES-th sub-block of 32.
#import weights
#ifdef SUBGROUPS
#else
var<workgroup> partial: array<f32, WORKGROUP>;
#endif

struct Params {
    rows: u32, // rows of w
    y_stride: u32,
    y_offset: u32,
}

@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>; // w[N, K] packed
#ifdef DOT4
@group(0) @binding(1) var<storage, read> q: array<vec4<u32>>; // q[COLUMNS, K / 16]
@group(0) @binding(2) var<storage, read> s: array<vec2<f32>>; // s[COLUMNS, K / 32]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // y[COLUMNS, y_stride]
#else
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // x[COLUMNS, X_COLS / 4]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // y[COLUMNS, y_stride]

// Four values of x; zero past its end, where the rows of w are padded with zeros.
fn x_load(c: u32, i: u32) -> vec4<f32> {
    if K != X_COLS && i >= X_COLS / 4u {
        return vec4<f32>(0.0);
    }
    return x[c * (X_COLS / 4u) + i];
}
#endif
@group(1) @binding(0) var<uniform> params: Params;

// The sum over the LANES invocations that share rows; every invocation of the workgroup takes part.
fn lanes_sum(value: f32, lane: u32) -> f32 {
#ifdef SUBGROUPS
    return subgroupAdd(value);
#else
    workgroupBarrier();
    partial[lane] = value;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if lane % LANES < step {
            partial[lane] += partial[lane + step];
        }
    }
    workgroupBarrier();
    return partial[lane - lane % LANES];
#endif
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let first = ((group.x + group.y * groups.x) * (WORKGROUP / LANES) + lane / LANES) * TILE;
    var sums: array<array<f32, COLUMNS>, TILE>;
    // Rows past the end repeat the last one; their sums are not written.
    for (var block = lane % LANES; block < K / 32u; block += LANES) {
#ifdef DOT4
        for (var t = 0u; t < TILE; t++) {
            let groups_of_4 = weights_groups(min(first + t, params.rows - 1u) * ROW_VEC4, block);
            for (var c = 0u; c < COLUMNS; c++) {
                let at = c * (K / 16u) + 2u * block;
                let low = q[at];
                let high = q[at + 1u];
                var dots = vec2<i32>(0);
                for (var g = 0u; g < 4u; g++) {
                    dots.x += dot4I8Packed(groups_of_4.q[g], low[g]);
                    dots.y += dot4I8Packed(groups_of_4.q[g + 4u], high[g]);
                }
                let scale = s[c * (K / 32u) + block];
                sums[t][c] += scale.x * dot(groups_of_4.scale, vec2<f32>(dots)) - groups_of_4.minimum * scale.y;
            }
        }
#else
        var from_x: array<array<vec4<f32>, 8>, COLUMNS>;
        for (var c = 0u; c < COLUMNS; c++) {
            for (var i = 0u; i < 8u; i++) {
                from_x[c][i] = x_load(c, 8u * block + i);
            }
        }
        for (var t = 0u; t < TILE; t++) {
            let values = weights_block(min(first + t, params.rows - 1u) * ROW_VEC4, block);
            for (var c = 0u; c < COLUMNS; c++) {
                var sum = 0.0;
                for (var i = 0u; i < 8u; i++) {
                    sum += dot(values[i], from_x[c][i]);
                }
                sums[t][c] += sum;
            }
        }
#endif
    }
    for (var t = 0u; t < TILE; t++) {
        for (var c = 0u; c < COLUMNS; c++) {
            let sum = lanes_sum(sums[t][c], lane);
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
}
