// Joins the splits of attention_decode: y = Σ w_s Σpv_s / Σ w_s Σp_s, w_s = 2^(max_s - max). One workgroup a row and HEADS
// heads; WAYS splits of a head are added side by side.

struct Params {
    heads: u32, // H
}

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>; // rows[M] = (token, slot, position, active)
@group(0) @binding(1) var<storage, read> partial: array<vec2<f32>>; // partial[M, H, splits, HEAD_DIM + 2]: Σpv, max, Σp
@group(0) @binding(15) var<uniform> params: Params;

const OUTPUT: u32 = 2u;
#import output

const PAIRS: u32 = HEAD_DIM / 2u;

var<workgroup> stats: array<vec2<f32>, SPLITS>;
var<workgroup> weights: array<f32, SPLITS>;
var<workgroup> sums: array<vec2<f32>, WAYS * PAIRS>;
var<workgroup> merged: array<vec2<f32>, HEADS * PAIRS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = group.y;
    let row = rows[r];
    let pages = row.z / PAGE + 1u;
    let split_pages = (pages + SPLITS - 1u) / SPLITS;
    // As many as attention_decode fills; an inactive row has none and becomes zero.
    let splits = select(0u, (pages + split_pages - 1u) / split_pages, row.w != 0u);
    let pair = lane % PAIRS;
    let way = lane / PAIRS;
    for (var h = 0u; h < HEADS; h++) {
        let head = r * params.heads + group.x * HEADS + h;
        let start = head * SPLITS * (PAIRS + 1u);
        for (var turn = 0u; turn < (SPLITS + WORKGROUP - 1u) / WORKGROUP; turn++) {
            let i = turn * WORKGROUP + lane;
            if i >= splits {
                break;
            }
            stats[i] = partial[start + i * (PAIRS + 1u) + PAIRS];
        }
        workgroupBarrier();
        var top = -3e38;
        for (var i = 0u; i < SPLITS; i++) {
            if i >= splits {
                break;
            }
            top = max(top, stats[i].x);
        }
        for (var turn = 0u; turn < (SPLITS + WORKGROUP - 1u) / WORKGROUP; turn++) {
            let i = turn * WORKGROUP + lane;
            if i >= splits {
                break;
            }
            weights[i] = exp2(stats[i].x - top);
        }
        workgroupBarrier();
        if way < WAYS {
            var sum = vec2<f32>(0.0);
            for (var turn = 0u; turn < (SPLITS + WAYS - 1u) / WAYS; turn++) {
                let i = turn * WAYS + way;
                if i >= splits {
                    break;
                }
                sum += weights[i] * partial[start + i * (PAIRS + 1u) + pair];
            }
            sums[way * PAIRS + pair] = sum;
        }
        workgroupBarrier();
        if lane < PAIRS {
            var total = 0.0;
            for (var i = 0u; i < SPLITS; i++) {
                if i >= splits {
                    break;
                }
                total += weights[i] * stats[i].y;
            }
            var sum = sums[pair];
            for (var w = 1u; w < WAYS; w++) {
                sum += sums[w * PAIRS + pair];
            }
            merged[h * PAIRS + pair] = select(vec2<f32>(0.0), sum / total, total > 0.0);
        }
        workgroupBarrier();
    }
    let to = (r * params.heads + group.x * HEADS) * HEAD_DIM / 4u;
#ifdef DOT4
    if lane < HEADS * HEAD_DIM / 32u {
        var values: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            values[i] = vec4<f32>(merged[lane * 16u + 2u * i], merged[lane * 16u + 2u * i + 1u]);
        }
        put_block(to / 8u + lane, values);
    }
#else
    for (var turn = 0u; turn < (HEADS * HEAD_DIM / 4u + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let i = turn * WORKGROUP + lane;
        if (HEADS * HEAD_DIM / 4u) % WORKGROUP != 0u && i >= HEADS * HEAD_DIM / 4u {
            break;
        }
        put_vector(to + i, vec4<f32>(merged[2u * i], merged[2u * i + 1u]));
    }
#endif
}
