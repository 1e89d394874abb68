// Attention by f32 tiles: a workgroup of 16 x 16 invocations takes 64 queries against 32 keys at a time. Invocation
// (ty, tx) holds queries 4 ty + i: their scores with keys tx and tx + 16, and elements 64 c + 4 tx + j of their outputs.

@group(0) @binding(3) var<storage, read> k_cache: array<vec4<u32>>; // k_cache[pages, kv_count, PAGE, HEAD_DIM / 2]
@group(0) @binding(4) var<storage, read> v_cache: array<vec4<u32>>; // v_cache[pages, kv_count, PAGE, HEAD_DIM / 2]

const WORKGROUP: u32 = 256u;
const QUERIES: u32 = 64u;
const KEYS: u32 = 32u;
const CHUNKS: u32 = HEAD_DIM / 8u; // 16-byte loads a key
const K_STEPS: u32 = (HEAD_DIM + 31u) / 32u; // of 32 elements
const V_STEPS: u32 = (HEAD_DIM + 63u) / 64u; // of 64 elements
// One column more than keys, so that 8 neighbouring writes meet 8 different banks.
const K_STRIDE: u32 = KEYS + 1u;

// 32 elements of the queries, [query][8]; then the weights of the keys, [key][16], four queries an element.
var<workgroup> left: array<vec4<f32>, 512>;
// 32 elements of the keys, [8][key]; then the queries' maxima, [tx][16]; then 64 elements of the values, [key][16].
var<workgroup> right: array<vec4<f32>, 512>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let kv = group.y;
    // The last tile has the most keys and starts first.
    let tile = tile_of(groups.x - 1u - group.x, QUERIES);
    let first_query = tile.first_query;
    let queries = tile.queries;
    let ty = lane / 16u;
    let tx = lane % 16u;
    let row_stride = (params.heads + 2u * params.kv_heads) * (HEAD_DIM / 4u);
    let head = (params.kv_start + kv) * GROUP;

    var slot_of: vec4<u32>;
    var position_of: vec4<i32>;
    for (var i = 0u; i < 4u; i++) {
        let query = min(first_query + 4u * ty + i, queries - 1u);
        let row = rows[query / GROUP];
        slot_of[i] = row.y;
        position_of[i] = select(-1, i32(row.z), row.w != 0u);
    }
    var acc: array<array<vec4<f32>, 4>, V_STEPS>; // [step][query]
    for (var c = 0u; c < V_STEPS; c++) {
        for (var i = 0u; i < 4u; i++) {
            acc[c][i] = vec4<f32>(0.0);
        }
    }
    var top = vec4<f32>(LOWEST);
    var total = vec4<f32>(0.0); // of this invocation's keys

    var next_slot = 0u;
    loop {
        let slot = slot_from(tile, next_slot, 0u, 1u);
        if slot == 0xffffffffu {
            break;
        }
        next_slot = slot + 1u;
        let last = last_of(tile, slot, 0u, 1u);
        let limit = select(vec4<i32>(-1), position_of, slot_of == vec4<u32>(slot));

        for (var key = 0u; key <= last; key += KEYS) {
            let page = page_table[slot * params.max_pages + key / PAGE];
            let cached = ((page * params.kv_count + kv) * PAGE + key % PAGE) * CHUNKS;
            var score: array<vec4<f32>, 2>; // [key][query]
            score[0] = vec4<f32>(0.0);
            score[1] = vec4<f32>(0.0);
            for (var step = 0u; step < K_STEPS; step++) {
                for (var turn = 0u; turn < QUERIES * 8u / WORKGROUP; turn++) {
                    let i = turn * WORKGROUP + lane;
                    let element = 8u * step + i % 8u;
                    let query = first_query + i / 8u;
                    var value = vec4<f32>(0.0);
                    if element < HEAD_DIM / 4u && query < queries {
                        value = qkv[query / GROUP * row_stride + (head + query % GROUP) * (HEAD_DIM / 4u) + element];
                    }
                    left[i] = value * params.scale;
                }
                if lane < KEYS * 4u {
                    let chunk = lane % 4u;
                    var words = vec4<u32>(0u);
                    if 4u * step + chunk < CHUNKS {
                        words = k_cache[cached + lane / 4u * CHUNKS + 4u * step + chunk];
                    }
                    right[2u * chunk * K_STRIDE + lane / 4u] =
                        vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
                    right[(2u * chunk + 1u) * K_STRIDE + lane / 4u] =
                        vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w));
                }
                workgroupBarrier();
                for (var d = 0u; d < 8u; d++) {
                    let k0 = right[d * K_STRIDE + tx];
                    let k1 = right[d * K_STRIDE + tx + 16u];
                    let q0 = left[(4u * ty) * 8u + d];
                    let q1 = left[(4u * ty + 1u) * 8u + d];
                    let q2 = left[(4u * ty + 2u) * 8u + d];
                    let q3 = left[(4u * ty + 3u) * 8u + d];
                    score[0] += vec4<f32>(dot(q0, k0), dot(q1, k0), dot(q2, k0), dot(q3, k0));
                    score[1] += vec4<f32>(dot(q0, k1), dot(q1, k1), dot(q2, k1), dot(q3, k1));
                }
                workgroupBarrier();
            }
            let inside0 = vec4<i32>(i32(key + tx)) <= limit;
            let inside1 = vec4<i32>(i32(key + tx + 16u)) <= limit;
            right[tx * 16u + ty] = max(select(vec4<f32>(LOWEST), score[0], inside0),
                                       select(vec4<f32>(LOWEST), score[1], inside1));
            workgroupBarrier();
            var new_top = top;
            for (var i = 0u; i < 16u; i++) {
                new_top = max(new_top, right[i * 16u + ty]);
            }
            let rescale = exp2(top - new_top);
            top = new_top;
            let p0 = select(vec4<f32>(0.0), exp2(score[0] - top), inside0);
            let p1 = select(vec4<f32>(0.0), exp2(score[1] - top), inside1);
            total = total * rescale + p0 + p1;
            left[tx * 16u + ty] = p0;
            left[(tx + 16u) * 16u + ty] = p1;
            for (var c = 0u; c < V_STEPS; c++) {
                workgroupBarrier();
                for (var turn = 0u; turn < KEYS * 8u / WORKGROUP; turn++) {
                    let i = turn * WORKGROUP + lane;
                    let chunk = 8u * c + i % 8u;
                    var words = vec4<u32>(0u);
                    // What lies past the last position is another sequence's.
                    if chunk < CHUNKS && key + i / 8u <= last {
                        words = v_cache[cached + i / 8u * CHUNKS + chunk];
                    }
                    right[2u * i] = vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
                    right[2u * i + 1u] = vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w));
                }
                workgroupBarrier();
                var sum = array<vec4<f32>, 4>(acc[c][0] * rescale.x, acc[c][1] * rescale.y, acc[c][2] * rescale.z,
                                              acc[c][3] * rescale.w);
                for (var k = 0u; k < KEYS; k++) {
                    let p = left[k * 16u + ty];
                    let v = right[k * 16u + tx];
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
            workgroupBarrier();
        }
    }

    right[tx * 16u + ty] = total;
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < 16u; i++) {
        sum += right[i * 16u + ty];
    }
    // Rows that are not active attended to nothing and become zero.
    let inverse = select(vec4<f32>(0.0), 1.0 / sum, sum > vec4<f32>(0.0));
#ifdef DOT4
    // Eight neighbours hold a block of 32, which one of them writes.
    for (var i = 0u; i < 4u; i++) {
        for (var c = 0u; c < V_STEPS; c++) {
            workgroupBarrier();
            right[lane] = acc[c][i] * inverse[i];
            workgroupBarrier();
            let query = first_query + 4u * (lane / 2u) + i;
            let block = 2u * c + lane % 2u;
            if lane < 32u && query < queries && block < HEAD_DIM / 32u {
                var values: array<vec4<f32>, 8>;
                for (var j = 0u; j < 8u; j++) {
                    values[j] = right[8u * lane + j];
                }
                put_block((query / GROUP * params.heads + head + query % GROUP) * (HEAD_DIM / 32u) + block, values);
            }
        }
    }
#else
    for (var i = 0u; i < 4u; i++) {
        let query = first_query + 4u * ty + i;
        if query < queries {
            let to = (query / GROUP * params.heads + head + query % GROUP) * (HEAD_DIM / 4u);
            for (var c = 0u; c < V_STEPS; c++) {
                if 16u * c + tx < HEAD_DIM / 4u {
                    put_vector(to + 16u * c + tx, acc[c][i] * inverse[i]);
                }
            }
        }
    }
#endif
}
