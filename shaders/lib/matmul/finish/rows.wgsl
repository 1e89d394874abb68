// A column of y for each row of w, in order.
#import matmul/in_order
#import matmul/write

fn columns() -> u32 {
    return params.n;
}

#ifdef COOP_MATRIX
// Matrix (i, j) of every subgroup: through workgroup memory, added up over GROUPS_K. Where subgroups share no sums each
// writes its own, and nobody waits for the others.
fn write_part(sum: MatC, i: u32, j: u32, m0: u32, n0: u32, lane: u32) {
    let own = lane / SUBGROUP * FOURS;
    if GROUPS_K == 1u {
        let subgroup = lane / SUBGROUP;
        let m = m0 + (subgroup % GROUPS_M * PARTS_M + i) * SIDE;
        let n = n0 + (subgroup / GROUPS_M * PARTS_N + j) * SIDE;
        subgroupBarrier();
        coopStoreT(sum, &parts[own], SIDE / 4u);
        subgroupBarrier();
        for (var e = lane % SUBGROUP; e < FOURS; e += SUBGROUP) {
            write_four(m + 4u * e / SIDE, n + 4u * e % SIDE, parts[own + e]);
        }
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
    let whole = m0 + TILE_M <= params.m && n0 + TILE_N <= params.n;
    if !FINISHES && GROUPS_K == 1u && whole && (params.y_stride | params.y_offset) % 4u == 0u {
        write_whole(sums, m0, n0, lane);
        return;
    }
#endif
    write_part((*sums)[0], 0u, 0u, m0, n0, lane);
    if PARTS_N > 1u {
        write_part((*sums)[1], 0u, 1u, m0, n0, lane);
    }
    if PARTS_N > 2u {
        write_part((*sums)[2], 0u, 2u, m0, n0, lane);
        write_part((*sums)[3], 0u, 3u, m0, n0, lane);
    }
    if PARTS_M > 1u {
        write_part((*sums)[4], 1u, 0u, m0, n0, lane);
        if PARTS_N > 1u {
            write_part((*sums)[5], 1u, 1u, m0, n0, lane);
        }
        if PARTS_N > 2u {
            write_part((*sums)[6], 1u, 2u, m0, n0, lane);
            write_part((*sums)[7], 1u, 3u, m0, n0, lane);
        }
    }
    if PARTS_M > 2u {
        write_part((*sums)[8], 2u, 0u, m0, n0, lane);
        if PARTS_N > 1u {
            write_part((*sums)[9], 2u, 1u, m0, n0, lane);
        }
        if PARTS_N > 2u {
            write_part((*sums)[10], 2u, 2u, m0, n0, lane);
            write_part((*sums)[11], 2u, 3u, m0, n0, lane);
        }
        write_part((*sums)[12], 3u, 0u, m0, n0, lane);
        if PARTS_N > 1u {
            write_part((*sums)[13], 3u, 1u, m0, n0, lane);
        }
        if PARTS_N > 2u {
            write_part((*sums)[14], 3u, 2u, m0, n0, lane);
            write_part((*sums)[15], 3u, 3u, m0, n0, lane);
        }
    }
}
#endif
