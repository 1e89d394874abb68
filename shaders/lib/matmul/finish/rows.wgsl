// A column of y for each row of w, in order.
#import matmul/in_order
#import matmul/write

fn columns() -> u32 {
    return params.n;
}

#ifdef COOP_MATRIX
const HELD = (FOURS + SUBGROUP - 1u) / SUBGROUP; // vectors of an invocation

// An invocation's share of a matrix, whose first row and column are m and n.
struct Taken {
    sums: array<vec4<f32>, HELD>,
    m: u32,
    n: u32,
}

fn put(taken: ptr<function, Taken>, lane: u32) {
    for (var v = 0u; v < HELD; v++) {
        let e = lane % SUBGROUP + v * SUBGROUP;
        if FOURS % SUBGROUP == 0u || e < FOURS {
            write_four((*taken).m + 4u * e / SIDE, (*taken).n + 4u * e % SIDE, (*taken).sums[v]);
        }
    }
}

// Matrix (i, j) of every subgroup goes through workgroup memory. Where subgroups share no sums each takes its own, nobody waits for the
// others, and the matrix before it, `last`, is written meanwhile. Otherwise they are added up over GROUPS_K.
fn write_part(last: ptr<function, Taken>, sum: MatC, i: u32, j: u32, m0: u32, n0: u32, lane: u32) {
    let own = lane / SUBGROUP * FOURS;
    if GROUPS_K == 1u {
        let subgroup = lane / SUBGROUP;
        subgroupBarrier();
        coopStoreT(sum, &parts[own], SIDE / 4u);
        subgroupBarrier();
        var taken: Taken;
        for (var v = 0u; v < HELD; v++) {
            taken.sums[v] = parts[own + min(lane % SUBGROUP + v * SUBGROUP, FOURS - 1u)];
        }
        taken.m = m0 + (subgroup % GROUPS_M * PARTS_M + i) * SIDE;
        taken.n = n0 + (subgroup / GROUPS_M * PARTS_N + j) * SIDE;
        if i + j > 0u {
            put(last, lane);
        }
        *last = taken;
        return;
    }
    workgroupBarrier();
    coopStoreT(sum, &parts[own], SIDE / 4u);
    workgroupBarrier();
    for (var e = lane; e < GROUPS_M * GROUPS_N * FOURS; e += WORKGROUP) {
        let subgroup = e / FOURS;
        let m = (subgroup % GROUPS_M * PARTS_M + i) * SIDE + 4u * (e % FOURS) / SIDE;
        let n = (subgroup / GROUPS_M * PARTS_N + j) * SIDE + 4u * e % SIDE;
        var sums = parts[e];
        for (var k = 1u; k < GROUPS_K; k++) {
            sums += parts[e + k * (GROUPS_M * GROUPS_N * FOURS)];
        }
        write_four(m0 + m, n0 + n, sums);
    }
}

fn write_sums(sums: ptr<function, Sums>, m0: u32, n0: u32, lane: u32) {
#ifndef HALVES
    // Whole tiles go straight to y where matrices may: rows at multiples of 16 bytes.
    let whole = WHOLE || (m0 + TILE_M <= params.m && n0 + TILE_N <= params.n);
    if !FINISHES && GROUPS_K == 1u && whole && (params.y_stride | params.y_offset) % 4u == 0u {
        write_whole(sums, m0, n0, lane);
        return;
    }
#endif
    var last: Taken;
    write_part(&last, (*sums)[0], 0u, 0u, m0, n0, lane);
    if PARTS_N > 1u {
        write_part(&last, (*sums)[1], 0u, 1u, m0, n0, lane);
    }
    if PARTS_N > 2u {
        write_part(&last, (*sums)[2], 0u, 2u, m0, n0, lane);
        write_part(&last, (*sums)[3], 0u, 3u, m0, n0, lane);
    }
    if PARTS_M > 1u {
        write_part(&last, (*sums)[4], 1u, 0u, m0, n0, lane);
        if PARTS_N > 1u {
            write_part(&last, (*sums)[5], 1u, 1u, m0, n0, lane);
        }
        if PARTS_N > 2u {
            write_part(&last, (*sums)[6], 1u, 2u, m0, n0, lane);
            write_part(&last, (*sums)[7], 1u, 3u, m0, n0, lane);
        }
    }
    if PARTS_M > 2u {
        write_part(&last, (*sums)[8], 2u, 0u, m0, n0, lane);
        if PARTS_N > 1u {
            write_part(&last, (*sums)[9], 2u, 1u, m0, n0, lane);
        }
        if PARTS_N > 2u {
            write_part(&last, (*sums)[10], 2u, 2u, m0, n0, lane);
            write_part(&last, (*sums)[11], 2u, 3u, m0, n0, lane);
        }
        write_part(&last, (*sums)[12], 3u, 0u, m0, n0, lane);
        if PARTS_N > 1u {
            write_part(&last, (*sums)[13], 3u, 1u, m0, n0, lane);
        }
        if PARTS_N > 2u {
            write_part(&last, (*sums)[14], 3u, 2u, m0, n0, lane);
            write_part(&last, (*sums)[15], 3u, 3u, m0, n0, lane);
        }
    }
    if GROUPS_K == 1u {
        put(&last, lane);
    }
}
#endif
