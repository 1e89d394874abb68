// By ordinary arithmetic in f32; tiles are kept as f32, or as f16 where the device has it. 16 x 16 invocations take 64 rows
// against 32 keys at a time. Invocation (ty, tx) holds rows 4 ty + i: their scores with keys tx and tx + 16, and elements
// 64 c + 4 tx + j of their outputs.

const WORKGROUP: u32 = 256u;
const QUERIES: u32 = 64u;
const KEYS: u32 = 32u;
const COLUMNS: u32 = HEAD_DIM / 4u; // vectors of four in a head
const ROW: u32 = 3u * HEADS * COLUMNS;
const K_STEPS: u32 = (HEAD_DIM + 31u) / 32u; // of 32 elements
const V_STEPS: u32 = (HEAD_DIM + 63u) / 64u; // of 64 elements
// One column more than keys, so that 8 neighbouring writes meet 8 different banks.
const K_STRIDE: u32 = KEYS + 1u;

// 32 elements of the queries, [query][8]; then the weights of the keys, [key][16], four queries an element.
var<workgroup> left: array<Vec4, 512>;
// 32 elements of the keys, [8][key]; then 64 elements of the values, [key][16].
var<workgroup> right: array<Vec4, 512>;

// The queries' maxima, [tx][16], and their totals. In f32 they take the place of the keys.
#ifdef F16
var<workgroup> shared_tops: array<vec4<f32>, 256>;

fn put_top(i: u32, value: vec4<f32>) {
    shared_tops[i] = value;
}

fn get_top(i: u32) -> vec4<f32> {
    return shared_tops[i];
}

// The same for all invocations.
fn get_first_top() -> vec4<f32> {
    return workgroupUniformLoad(&shared_tops[0]);
}

// Conversion of what f16 cannot hold is undefined.
fn narrow(v: vec4<f32>) -> Vec4 {
    return Vec4(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}
#else
fn put_top(i: u32, value: vec4<f32>) {
    right[i] = value;
}

fn get_top(i: u32) -> vec4<f32> {
    return right[i];
}

fn get_first_top() -> vec4<f32> {
    return workgroupUniformLoad(&right[0]);
}

fn narrow(v: vec4<f32>) -> Vec4 {
    return v;
}
#endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * QUERIES;
    let head = group.y * COLUMNS;
    let ty = lane / 16u;
    let tx = lane % 16u;
    // Rows are in the order of their texts, so these are the bounds of all keys.
    let last = min(first + QUERIES, params.rows) - 1u;
#ifdef WRITABLE
    // Barriers depend on them, so the compiler has to know that they are the same in all invocations. Without f16 the tiles
    // take all of 16 KiB, so they pass through a vector of those. Rows are counted exactly in f32: a device binds fewer than 2^24.
    if lane == 0u {
        put_top(0u, vec4<f32>(f32(rows[first].z), f32(rows[last].w), 0.0, 0.0));
    }
    let bounds = vec4<u32>(get_first_top());
    let begin = bounds.x;
    let end = bounds.y;
#else
    let begin = rows[first].z;
    let end = rows[last].w;
#endif

    var start_of: vec4<u32>;
    var end_of: vec4<u32>;
    for (var i = 0u; i < 4u; i++) {
        let row = rows[min(first + 4u * ty + i, params.rows - 1u)];
        start_of[i] = row.z;
        end_of[i] = row.w;
    }
    var acc: array<array<vec4<f32>, 4>, V_STEPS>; // [step][query]
    for (var c = 0u; c < V_STEPS; c++) {
        for (var i = 0u; i < 4u; i++) {
            acc[c][i] = vec4<f32>(0.0);
        }
    }
    var top = vec4<f32>(LOWEST);
    var total = vec4<f32>(0.0); // of this invocation's keys

    for (var key = begin; key < end; key += KEYS) {
        var score: array<vec4<f32>, 2>; // [key][query]
        score[0] = vec4<f32>(0.0);
        score[1] = vec4<f32>(0.0);
        for (var step = 0u; step < K_STEPS; step++) {
            workgroupBarrier();
            for (var turn = 0u; turn < QUERIES * 8u / WORKGROUP; turn++) {
                let i = turn * WORKGROUP + lane;
                let element = 8u * step + i % 8u;
                let query = first + i / 8u;
                var value = vec4<f32>(0.0);
                if element < COLUMNS && query < params.rows {
                    value = qkv_at(query * ROW + head + element);
                }
                left[i] = narrow(value * params.scale);
            }
            {
                let element = 8u * step + lane % 8u;
                let source = min(key + lane / 8u, end - 1u);
                var value = vec4<f32>(0.0);
                if element < COLUMNS {
                    value = qkv_at(source * ROW + HEADS * COLUMNS + head + element);
                }
                right[lane % 8u * K_STRIDE + lane / 8u] = narrow(value);
            }
            workgroupBarrier();
            for (var d = 0u; d < 8u; d++) {
                let k0 = vec4<f32>(right[d * K_STRIDE + tx]);
                let k1 = vec4<f32>(right[d * K_STRIDE + tx + 16u]);
                let q0 = vec4<f32>(left[(4u * ty) * 8u + d]);
                let q1 = vec4<f32>(left[(4u * ty + 1u) * 8u + d]);
                let q2 = vec4<f32>(left[(4u * ty + 2u) * 8u + d]);
                let q3 = vec4<f32>(left[(4u * ty + 3u) * 8u + d]);
                score[0] += vec4<f32>(dot(q0, k0), dot(q1, k0), dot(q2, k0), dot(q3, k0));
                score[1] += vec4<f32>(dot(q0, k1), dot(q1, k1), dot(q2, k1), dot(q3, k1));
            }
        }
        let key0 = vec4<u32>(key + tx);
        let key1 = key0 + 16u;
        let inside0 = (key0 >= start_of) & (key0 < end_of);
        let inside1 = (key1 >= start_of) & (key1 < end_of);
        workgroupBarrier();
        put_top(tx * 16u + ty, max(select(vec4<f32>(LOWEST), score[0], inside0),
                                   select(vec4<f32>(LOWEST), score[1], inside1)));
        workgroupBarrier();
        var new_top = top;
        for (var i = 0u; i < 16u; i++) {
            new_top = max(new_top, get_top(i * 16u + ty));
        }
        let rescale = exp2(top - new_top);
        top = new_top;
        let p0 = select(vec4<f32>(0.0), exp2(score[0] - top), inside0);
        let p1 = select(vec4<f32>(0.0), exp2(score[1] - top), inside1);
        total = total * rescale + p0 + p1;
        left[tx * 16u + ty] = narrow(p0);
        left[(tx + 16u) * 16u + ty] = narrow(p1);
        for (var c = 0u; c < V_STEPS; c++) {
            workgroupBarrier();
            for (var turn = 0u; turn < KEYS * 16u / WORKGROUP; turn++) {
                let i = turn * WORKGROUP + lane;
                let element = 16u * c + i % 16u;
                let source = min(key + i / 16u, end - 1u);
                var value = vec4<f32>(0.0);
                if element < COLUMNS {
                    value = qkv_at(source * ROW + 2u * HEADS * COLUMNS + head + element);
                }
                right[i] = narrow(value);
            }
            workgroupBarrier();
            var sum = array<vec4<f32>, 4>(acc[c][0] * rescale.x, acc[c][1] * rescale.y, acc[c][2] * rescale.z,
                                          acc[c][3] * rescale.w);
            for (var k = 0u; k < KEYS; k++) {
                let p = vec4<f32>(left[k * 16u + ty]);
                let v = vec4<f32>(right[k * 16u + tx]);
                sum[0] += p.x * v;
                sum[1] += p.y * v;
                sum[2] += p.z * v;
                sum[3] += p.w * v;
            }
            acc[c][0] = sum[0];
            acc[c][1] = sum[1];
            acc[c][2] = sum[2];
            acc[c][3] = sum[3];
        }
    }

    workgroupBarrier();
    put_top(tx * 16u + ty, total);
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < 16u; i++) {
        sum += get_top(i * 16u + ty);
    }
    // Rows that are no text's attended to nothing and become zero.
    let inverse = select(vec4<f32>(0.0), 1.0 / sum, sum > vec4<f32>(0.0));
    for (var i = 0u; i < 4u; i++) {
        let query = first + 4u * ty + i;
        if query < params.rows {
            for (var c = 0u; c < V_STEPS; c++) {
                if 16u * c + tx < COLUMNS {
                    put_vector(query * HEADS * COLUMNS + head + 16u * c + tx, acc[c][i] * inverse[i]);
                }
            }
        }
    }
}
