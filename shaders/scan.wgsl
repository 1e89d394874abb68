// The best TOP of each ROWS rows w by their product with a query, without writing all products: LANES invocations share a
// row, the second dimension is the query.
#import weights
#import top_k/select

struct Params {
    rows: u32, // of w
    groups: u32, // of y
    first_group: u32, // of y, that this dispatch writes
    first_id: u32, // of the first row
}

@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>; // w[N, K] packed
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // x[Q, K / 4]
@group(0) @binding(2) var<storage, read> removed: array<u32>; // removed[N / 32], a bit a row
@group(0) @binding(3) var<storage, read_write> y: array<vec2<u32>>; // y[Q, groups, TOP] = (key, id)
@group(0) @binding(15) var<uniform> params: Params;

const ROWS = WORKGROUP * HELD;
const BLOCKS = K / 32u;
const SIDE_BY_SIDE = WORKGROUP / LANES; // rows that are read at once
const AT_ONCE = SIDE_BY_SIDE * TILE; // rows of a pass

var<workgroup> scores: array<f32, ROWS>;

// The sum over the LANES invocations that share a row.
fn lanes_sum(value: f32) -> f32 {
    var sum = value;
#ifdef SUBGROUPS
    for (var i = 0u; i < countTrailingZeros(LANES); i++) {
        sum += subgroupShuffleXor(sum, 1u << i);
    }
#endif
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * ROWS;
    let query = group.y * (K / 4u);
    // An invocation has a block of the query in registers and reads that block of its rows; one round where there are
    // LANES blocks or fewer.
    for (var round = 0u; round < (BLOCKS + LANES - 1u) / LANES; round++) {
        let block = round * LANES + lane % LANES;
        let has = block < BLOCKS;
        var values: array<vec4<f32>, 8>;
        for (var i = 0u; i < 8u; i++) {
            values[i] = x[query + 8u * min(block, BLOCKS - 1u) + i];
        }
        for (var sweep = 0u; sweep < (ROWS + AT_ONCE - 1u) / AT_ONCE; sweep++) {
            let pass_row = sweep * AT_ONCE;
            // Neighbouring invocations read a row, and the rows of a pass are neighbours.
            let own = pass_row + lane / LANES;
            var loaded: array<Raw, TILE>;
            if has {
                for (var t = 0u; t < TILE; t++) {
                    // Rows past the end repeat the last one; they are no candidates.
                    let row = min(first + own + t * SIDE_BY_SIDE, params.rows - 1u);
                    loaded[t] = weights_raw(row * ROW_VEC4, block);
                }
            }
            for (var t = 0u; t < TILE; t++) {
                var sum = 0.0;
                if has {
                    let weights = weights_values(loaded[t]);
                    for (var i = 0u; i < 8u; i++) {
                        sum += dot(values[i], weights[i]);
                    }
                }
                sum = lanes_sum(sum);
                if lane % LANES == 0u {
                    let at = own + t * SIDE_BY_SIDE;
                    if round > 0u {
                        sum += scores[at];
                    }
                    scores[at] = sum;
                }
            }
        }
    }
    workgroupBarrier();
    var held: Held;
    for (var i = 0u; i < HELD; i++) {
        let at = i * WORKGROUP + lane;
        let row = first + at;
        held[i] = NONE;
        if row < params.rows && ((removed[row / 32u] >> (row % 32u)) & 1u) == 0u {
            held[i] = vec2<u32>(key_of(scores[at]), params.first_id + row);
        }
    }
    select_best(&held, lane);
    if lane < TOP {
        let at = (group.y * params.groups + params.first_group + group.x) * TOP + lane;
        y[at] = vec2<u32>(keys[lane], ids[lane]);
    }
}
