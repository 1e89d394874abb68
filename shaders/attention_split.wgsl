// Softmax(q · kᵀ * scale) · v over one split of a row's context, unnormalised. One workgroup a split, QUERIES query heads
// of one KV head and a row: LANES neighbouring invocations hold a key's 16-byte chunks, and WORKGROUP / LANES keys are
// worked on side by side, each side with an online softmax of its own (Milakov and Gimelshein 2018), joined at the end.
// Splits are whole pages, as many as it takes for `splits` of them to hold all positions up to the row's.

struct Params {
    heads: u32, // H
    kv_heads: u32, // KV, key heads in qkv
    kv_start: u32, // first KV head of this shard
    kv_count: u32, // KV heads of this shard
    max_pages: u32,
    splits: u32,
    scale: f32, // of scores, times log2(e)
}

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>; // rows[M] = (token, slot, position, active)
@group(0) @binding(1) var<storage, read> page_table: array<u32>; // page_table[slots, max_pages]
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // qkv[M, (H + 2 KV) * HEAD_DIM]
@group(0) @binding(3) var<storage, read> k_cache: array<vec4<u32>>; // k_cache[pages, kv_count, PAGE, HEAD_DIM / 2]
@group(0) @binding(4) var<storage, read> v_cache: array<vec4<u32>>; // v_cache[pages, kv_count, PAGE, HEAD_DIM / 2]
@group(0) @binding(5) var<storage, read_write> partial: array<vec2<f32>>; // partial[M, H, splits, HEAD_DIM + 2]: Σpv, max, Σp
@group(1) @binding(0) var<uniform> params: Params;

const CHUNKS: u32 = HEAD_DIM / 8u;
const KEYS: u32 = WORKGROUP / LANES;
const LOWEST: f32 = -3e38;

var<workgroup> sums: array<vec4<f32>, 2u * WORKGROUP>;
var<workgroup> stats: array<vec2<f32>, KEYS>;
#ifndef SUBGROUPS
var<workgroup> dots: array<f32, UNROLL * QUERIES * WORKGROUP>;
#endif

struct Chunk {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn unpack(words: vec4<u32>) -> Chunk {
    return Chunk(vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)),
                 vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = group.y;
    let split = group.z;
    let kv = group.x / (GROUP / QUERIES);
    let head = (params.kv_start + kv) * GROUP + group.x % (GROUP / QUERIES) * QUERIES;
    let row = rows[r];
    let pages = row.z / PAGE + 1u;
    let split_pages = (pages + params.splits - 1u) / params.splits;
    let first = split * split_pages;
    let end = select(0u, min(first + split_pages, pages), row.w != 0u);

    let chunk = min(lane % LANES, CHUNKS - 1u);
    let side = lane / LANES;
    // Lanes past the head's end add nothing to a dot product.
    let scale = select(0.0, params.scale, lane % LANES < CHUNKS);
    var q: array<Chunk, QUERIES>;
    var acc: array<Chunk, QUERIES>;
    var top: array<f32, QUERIES>;
    var total: array<f32, QUERIES>;
    for (var g = 0u; g < QUERIES; g++) {
        let at = (r * (params.heads + 2u * params.kv_heads) + head + g) * (HEAD_DIM / 4u) + 2u * chunk;
        q[g] = Chunk(qkv[at] * scale, qkv[at + 1u] * scale);
        acc[g] = Chunk(vec4<f32>(0.0), vec4<f32>(0.0));
        top[g] = LOWEST;
        total[g] = 0.0;
    }

    let table = row.y * params.max_pages;
    var next_page = page_table[table + min(first, pages - 1u)];
    for (var index = first; index < end; index++) {
        let start = (next_page * params.kv_count + kv) * PAGE * CHUNKS + chunk;
        // The next page's number arrives while this page is worked on.
        next_page = page_table[table + min(index + 1u, pages - 1u)];
        let last = row.z - index * PAGE; // the last key of this page, at least PAGE - 1 in all but the last
        for (var tile = 0u; tile < PAGE; tile += KEYS * UNROLL) {
            if tile > last {
                break;
            }
            // All loads of the tile are in flight before the first is used. Keys past the position are not read.
            var k: array<vec4<u32>, UNROLL>;
            var v: array<vec4<u32>, UNROLL>;
            for (var u = 0u; u < UNROLL; u++) {
                k[u] = k_cache[start + min(tile + u * KEYS + side, last) * CHUNKS];
            }
            for (var u = 0u; u < UNROLL; u++) {
                v[u] = v_cache[start + min(tile + u * KEYS + side, last) * CHUNKS];
            }
            var score: array<array<f32, QUERIES>, UNROLL>;
            for (var u = 0u; u < UNROLL; u++) {
                let key = unpack(k[u]);
                for (var g = 0u; g < QUERIES; g++) {
                    var sum = dot(q[g].low, key.low) + dot(q[g].high, key.high);
#ifdef SUBGROUPS
                    for (var distance = 1u; distance < LANES; distance <<= 1u) {
                        sum += subgroupShuffleXor(sum, distance);
                    }
                    score[u][g] = sum;
#else
                    dots[(u * QUERIES + g) * WORKGROUP + lane] = sum;
#endif
                }
            }
#ifndef SUBGROUPS
            workgroupBarrier();
            for (var u = 0u; u < UNROLL; u++) {
                for (var g = 0u; g < QUERIES; g++) {
                    var sum = 0.0;
                    for (var i = 0u; i < LANES; i++) {
                        sum += dots[(u * QUERIES + g) * WORKGROUP + side * LANES + i];
                    }
                    score[u][g] = sum;
                }
            }
            workgroupBarrier();
#endif
            for (var g = 0u; g < QUERIES; g++) {
                var new_top = top[g];
                for (var u = 0u; u < UNROLL; u++) {
                    if tile + u * KEYS + side <= last {
                        new_top = max(new_top, score[u][g]);
                    }
                }
                let rescale = exp2(top[g] - new_top);
                top[g] = new_top;
                total[g] *= rescale;
                acc[g].low *= rescale;
                acc[g].high *= rescale;
            }
            for (var u = 0u; u < UNROLL; u++) {
                let value = unpack(v[u]);
                let inside = tile + u * KEYS + side <= last;
                for (var g = 0u; g < QUERIES; g++) {
                    let p = select(0.0, exp2(score[u][g] - top[g]), inside);
                    total[g] += p;
                    acc[g].low += p * value.low;
                    acc[g].high += p * value.high;
                }
            }
        }
    }

    for (var g = 0u; g < QUERIES; g++) {
        sums[lane] = acc[g].low;
        sums[WORKGROUP + lane] = acc[g].high;
        if lane % LANES == 0u {
            stats[side] = vec2<f32>(top[g], total[g]);
        }
        workgroupBarrier();
        var all_top = LOWEST;
        for (var i = 0u; i < KEYS; i++) {
            all_top = max(all_top, stats[i].x);
        }
        let to = ((r * params.heads + head + g) * params.splits + split) * (HEAD_DIM / 2u + 1u);
        for (var c = lane; c < HEAD_DIM / 4u; c += WORKGROUP) {
            var sum = vec4<f32>(0.0);
            for (var i = 0u; i < KEYS; i++) {
                sum += exp2(stats[i].x - all_top) * sums[(c & 1u) * WORKGROUP + i * LANES + (c >> 1u)];
            }
            partial[to + 2u * c] = sum.xy;
            partial[to + 2u * c + 1u] = sum.zw;
        }
        if lane == 0u {
            var sum = 0.0;
            for (var i = 0u; i < KEYS; i++) {
                sum += exp2(stats[i].x - all_top) * stats[i].y;
            }
            // A split without keys is never read; zero keeps it the same in every run.
            partial[to + HEAD_DIM / 2u] = vec2<f32>(select(0.0, all_top, sum > 0.0), sum);
        }
        workgroupBarrier();
    }
}
