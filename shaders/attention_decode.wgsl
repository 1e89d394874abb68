// Softmax(q · kᵀ * scale) · v of a row over its context, or over one split of it, with what comes before: queries and key
// are turned by the row's position, and key and value put into the cache. Rows have different slots. One workgroup a split,
// QUERIES query heads of one KV head and a row: LANES neighbouring invocations hold a key's 16-byte chunks, and
// WORKGROUP / LANES keys are worked on side by side, each side with an online softmax of its own (Milakov and Gimelshein
// 2018), joined at the end. Splits are whole pages, as many as it takes for `splits` of them to hold all positions up to
// the row's.

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
@group(0) @binding(3) var<storage, read> rope: array<vec2<f32>>; // rope[256 + n_ctx / 256, ROPE_DIM / 2] = (cos, sin)
@group(0) @binding(4) var<storage, read_write> k_cache: array<vec4<u32>>; // k_cache[pages, kv_count, PAGE, HEAD_DIM / 2]
@group(0) @binding(5) var<storage, read_write> v_cache: array<vec4<u32>>; // v_cache[pages, kv_count, PAGE, HEAD_DIM / 2]
@group(0) @binding(15) var<uniform> params: Params;

#import rope
#ifndef SPREAD
#import reduce
#endif

const CHUNKS: u32 = HEAD_DIM / 8u;
const KEYS: u32 = WORKGROUP / LANES;
const LOWEST: f32 = -3e38;

#ifdef SPREAD
const SUBGROUPS_AT_WORK: u32 = WORKGROUP / SUBGROUP;

// Of each subgroup: its sums, element after element, its largest score and its sum of weights.
var<workgroup> sums: array<vec4<f32>, SUBGROUPS_AT_WORK * LANES * 2u>;
var<workgroup> tops: array<f32, SUBGROUPS_AT_WORK>;
var<workgroup> totals: array<f32, SUBGROUPS_AT_WORK>;
#else
var<workgroup> sums: array<vec4<f32>, 2u * WORKGROUP>;
#endif
#ifndef SUBGROUPS
var<workgroup> dots: array<f32, UNROLL * QUERIES * WORKGROUP>;
#endif

#ifndef SPREAD
// Elements 4c to 4c + 3 of the joined sums.
fn sum_at(c: u32) -> vec4<f32> {
    return sums[(c & 1u) * WORKGROUP + (c >> 1u)];
}
#endif

#import result

struct Chunk {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn unpack(words: vec4<u32>) -> Chunk {
    return Chunk(vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)),
                 vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)));
}

fn pack_chunk(chunk: Chunk) -> vec4<u32> {
    return vec4<u32>(pack(chunk.low.x, chunk.low.y), pack(chunk.low.z, chunk.low.w), pack(chunk.high.x, chunk.high.y),
                     pack(chunk.high.z, chunk.high.w));
}

// Element e of the head that begins at vector `head`.
fn element(head: u32, e: u32) -> f32 {
    return qkv[head + (e >> 2u)][e & 3u];
}

// Elements 8 * chunk to 8 * chunk + 7 of a head after the turn.
fn turned(head: u32, chunk: u32, position: u32) -> Chunk {
    let low = qkv[head + 2u * chunk];
    let high = qkv[head + 2u * chunk + 1u];
    var out = array<f32, 8>(low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w);
    if INTERLEAVED {
        for (var i = 0u; i < 4u; i++) {
            let pair = 4u * chunk + i;
            if pair < PAIRS {
                let x = vec2<f32>(out[2u * i], out[2u * i + 1u]);
                let turn = angle(position, pair);
                out[2u * i] = x.x * turn.x - x.y * turn.y;
                out[2u * i + 1u] = x.x * turn.y + x.y * turn.x;
            }
        }
    } else {
        for (var i = 0u; i < 8u; i++) {
            let e = 8u * chunk + i;
            if e < PAIRS {
                let turn = angle(position, e);
                out[i] = out[i] * turn.x - element(head, e + PAIRS) * turn.y;
            } else if e < ROPE_DIM {
                let turn = angle(position, e - PAIRS);
                out[i] = element(head, e - PAIRS) * turn.y + out[i] * turn.x;
            }
        }
    }
    return Chunk(vec4<f32>(out[0], out[1], out[2], out[3]), vec4<f32>(out[4], out[5], out[6], out[7]));
}

// Keys and values of a tile, on their way.
struct Fetched {
    k: array<vec4<u32>, UNROLL>,
    v: array<vec4<u32>, UNROLL>,
}

// A tile of a page that begins at `start`, for one side. Keys past `cached`, the last one that the cache has, are not read.
fn fetch(start: u32, tile: u32, side: u32, cached: u32) -> Fetched {
    var out: Fetched;
    for (var u = 0u; u < UNROLL; u++) {
        out.k[u] = k_cache[start + min(tile + u * KEYS + side, cached) * CHUNKS];
    }
    for (var u = 0u; u < UNROLL; u++) {
        out.v[u] = v_cache[start + min(tile + u * KEYS + side, cached) * CHUNKS];
    }
    return out;
}

// Where a tile lies: a page of the row's, the tile's first key in it, the page's place in the cache, and the next page's number.
struct Cursor {
    index: u32,
    tile: u32,
    start: u32,
    next_page: u32,
}

// The place of the tile behind one.
fn advanced(place: Cursor, position: u32, table: u32, page_words: u32, within: u32) -> Cursor {
    var next = place;
    next.tile += KEYS * UNROLL;
    if next.tile >= PAGE || next.tile > position - next.index * PAGE {
        next.tile = 0u;
        next.index += 1u;
        next.start = next.next_page * page_words + within;
        next.next_page = page_table[table + min(next.index + 1u, position / PAGE)];
    }
    return next;
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
    let table = row.y * params.max_pages;
    let page_words = params.kv_count * PAGE * CHUNKS;
    let within = kv * PAGE * CHUNKS + chunk;
    // The first DISTANCE tiles are under way while queries are turned, later ones while those before them are worked on.
    let last_page = page_table[table + pages - 1u];
    var index = min(first, pages - 1u);
    var tile = 0u;
    var ahead = Cursor(index, 0u, page_table[table + index] * page_words + within, 0u);
    ahead.next_page = page_table[table + min(index + 1u, pages - 1u)];
    var fetched: Fetched;
    var following: Fetched;
    for (var turn = 0u; turn < DISTANCE; turn++) {
        if turn == 0u || ahead.index < end {
            following = fetch(ahead.start, ahead.tile, side, max(row.z - ahead.index * PAGE, 1u) - 1u);
            ahead = advanced(ahead, row.z, table, page_words, within);
        }
        if turn == 0u {
            fetched = following;
        }
    }

    // Lanes past the head's end add nothing to a dot product.
    let scale = select(0.0, params.scale, lane % LANES < CHUNKS);
    let start_of_row = r * (params.heads + 2u * params.kv_heads) * (HEAD_DIM / 4u);
    var q: array<Chunk, QUERIES>;
    var acc: array<Chunk, QUERIES>;
    var top: array<f32, QUERIES>;
    var total: array<f32, QUERIES>;
    for (var g = 0u; g < QUERIES; g++) {
        let query = turned(start_of_row + (head + g) * (HEAD_DIM / 4u), chunk, row.z);
        q[g] = Chunk(query.low * scale, query.high * scale);
        acc[g] = Chunk(vec4<f32>(0.0), vec4<f32>(0.0));
        top[g] = LOWEST;
        total[g] = 0.0;
    }
    // The row's own key and value do not come from the cache, where one workgroup is about to put them.
    let own_key = start_of_row + (params.heads + params.kv_start + kv) * (HEAD_DIM / 4u);
    let own_value = own_key + params.kv_heads * (HEAD_DIM / 4u);
    let fresh_k = pack_chunk(turned(own_key, chunk, row.z));
    let fresh_v = pack_chunk(Chunk(qkv[own_value + 2u * chunk], qkv[own_value + 2u * chunk + 1u]));

    // As many tiles as there are: browsers take a loop that counts to a constant as it is.
    for (var round = 0u; round < 0x40000000u; round++) {
        if index >= end || first >= end {
            break;
        }
        let last = row.z - index * PAGE; // the last key of this page, at least PAGE - 1 in all but the last
        for (var u = 0u; u < UNROLL; u++) {
            if index + 1u == pages && tile + u * KEYS + side == last {
                fetched.k[u] = fresh_k;
                fetched.v[u] = fresh_v;
            }
        }
        var score: array<array<f32, QUERIES>, UNROLL>;
        for (var u = 0u; u < UNROLL; u++) {
            let key = unpack(fetched.k[u]);
            for (var g = 0u; g < QUERIES; g++) {
                var sum = dot(q[g].low, key.low) + dot(q[g].high, key.high);
#ifdef SUBGROUPS
                for (var i = 0u; i < countTrailingZeros(LANES); i++) {
                    sum += subgroupShuffleXor(sum, 1u << i);
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
            let value = unpack(fetched.v[u]);
            let inside = tile + u * KEYS + side <= last;
            for (var g = 0u; g < QUERIES; g++) {
                let p = select(0.0, exp2(score[u][g] - top[g]), inside);
                total[g] += p;
                acc[g].low += p * value.low;
                acc[g].high += p * value.high;
            }
        }
        tile += KEYS * UNROLL;
        if tile >= PAGE || tile > last {
            tile = 0u;
            index += 1u;
        }
        if DISTANCE > 1u {
            fetched = following;
        }
        if ahead.index < end {
            following = fetch(ahead.start, ahead.tile, side, max(row.z - ahead.index * PAGE, 1u) - 1u);
            ahead = advanced(ahead, row.z, table, page_words, within);
        }
        if DISTANCE == 1u {
            fetched = following;
        }
    }

#ifdef SPREAD
    for (var g = 0u; g < QUERIES; g++) {
        var own_top = top[g];
        for (var i = countTrailingZeros(LANES); i < countTrailingZeros(SUBGROUP); i++) {
            own_top = max(own_top, subgroupShuffleXor(own_top, 1u << i));
        }
        let rescale = exp2(top[g] - own_top);
        var own_total = total[g] * rescale;
        var low = acc[g].low * rescale;
        var high = acc[g].high * rescale;
        for (var i = countTrailingZeros(LANES); i < countTrailingZeros(SUBGROUP); i++) {
            own_total += subgroupShuffleXor(own_total, 1u << i);
            low += subgroupShuffleXor(low, 1u << i);
            high += subgroupShuffleXor(high, 1u << i);
        }
        let subgroup = lane / SUBGROUP;
        if g > 0u {
            workgroupBarrier();
        }
        if lane % SUBGROUP < LANES {
            sums[(subgroup * LANES + lane % LANES) * 2u] = low;
            sums[(subgroup * LANES + lane % LANES) * 2u + 1u] = high;
        }
        if lane % SUBGROUP == 0u {
            tops[subgroup] = own_top;
            totals[subgroup] = own_total;
        }
        workgroupBarrier();
        var all_top = LOWEST;
        for (var s = 0u; s < SUBGROUPS_AT_WORK; s++) {
            all_top = max(all_top, tops[s]);
        }
        for (var turn = 0u; turn < (HEAD_DIM + WORKGROUP - 1u) / WORKGROUP; turn++) {
            let e = turn * WORKGROUP + lane;
            var value = 0.0;
            var all_total = 0.0;
            if e < HEAD_DIM {
                for (var s = 0u; s < SUBGROUPS_AT_WORK; s++) {
                    let weight = exp2(tops[s] - all_top);
                    all_total += weight * totals[s];
                    value += weight * sums[s * LANES * 2u + e / 4u][e % 4u];
                }
            }
            put_element(r, head + g, split, e, value, all_top, all_total);
        }
    }
#else
    for (var g = 0u; g < QUERIES; g++) {
        let all_top = reduce_max(top[g], lane);
        let weight = exp2(top[g] - all_top);
        let all_total = reduce_sum(select(0.0, total[g] * weight, lane % LANES == 0u), lane);
        sums[lane] = acc[g].low * weight;
        sums[WORKGROUP + lane] = acc[g].high * weight;
        for (var i = countTrailingZeros(KEYS); i > 0u; i--) {
            let step = 1u << (i - 1u);
            workgroupBarrier();
            if side < step {
                sums[lane] += sums[lane + step * LANES];
                sums[WORKGROUP + lane] += sums[WORKGROUP + lane + step * LANES];
            }
        }
        workgroupBarrier();
        put(r, head, g, split, all_top, all_total, lane);
        workgroupBarrier();
    }
    finish(r, head, lane);
#endif

    let has_last = first < end && end == pages;
    if has_last && group.x % (GROUP / QUERIES) == 0u && lane < CHUNKS {
        let to = last_page * page_words + within + row.z % PAGE * CHUNKS;
        k_cache[to] = fresh_k;
        v_cache[to] = fresh_v;
    }
}
