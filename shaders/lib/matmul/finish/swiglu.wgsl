// silu(gate) * up: w holds the rows of all gates, then those of all ups, and a tile SIDE gates, their ups, the next gates.
const OUTPUT: u32 = 2u;

#import matmul/write

#import matmul/begin_none

const FINISHES = true;

fn row_of(n0: u32, r: u32) -> u32 {
    let gate = n0 / 2u + r / (2u * SIDE) * SIDE + r % SIDE;
    if WHOLE {
        return gate + select(0u, columns(), r % (2u * SIDE) >= SIDE);
    }
    return min(gate, columns() - 1u) + select(0u, columns(), r % (2u * SIDE) >= SIDE);
}

fn columns() -> u32 {
    return params.n / 2u;
}

fn finish(n: u32, sum: f32) -> f32 {
    return sum;
}

const HELD = (FOURS + SUBGROUP - 1u) / SUBGROUP; // vectors of an invocation

// Matrices (i, j) and (i, j + 1) of every subgroup: gates and their ups.
fn write_pair(gates: MatC, ups: MatC, i: u32, j: u32, m0: u32, n0: u32, lane: u32) {
    let own = lane / SUBGROUP * FOURS;
    let subgroup = lane / SUBGROUP;
    let m = m0 + (subgroup % GROUPS_M * PARTS_M + i) * SIDE;
    let n = n0 / 2u + (subgroup / GROUPS_M * PARTS_N + j) / 2u * SIDE;
    subgroupBarrier();
    coopStoreT(gates, &parts[own], SIDE / 4u);
    subgroupBarrier();
    var held: array<vec4<f32>, HELD>;
    for (var v = 0u; v < HELD; v++) {
        held[v] = parts[own + min(lane % SUBGROUP + v * SUBGROUP, FOURS - 1u)];
    }
    subgroupBarrier();
    coopStoreT(ups, &parts[own], SIDE / 4u);
    subgroupBarrier();
    for (var v = 0u; v < HELD; v++) {
        let e = lane % SUBGROUP + v * SUBGROUP;
        if e < FOURS {
            write_four(m + 4u * e / SIDE, n + 4u * e % SIDE, held[v] / (1.0 + exp(-held[v])) * parts[own + e]);
        }
    }
}

fn write_sums(sums: ptr<function, Sums>, m0: u32, n0: u32, lane: u32) {
    write_pair((*sums)[0], (*sums)[1], 0u, 0u, m0, n0, lane);
    if PARTS_N > 2u {
        write_pair((*sums)[2], (*sums)[3], 0u, 2u, m0, n0, lane);
    }
    if PARTS_M > 1u {
        write_pair((*sums)[4], (*sums)[5], 1u, 0u, m0, n0, lane);
        if PARTS_N > 2u {
            write_pair((*sums)[6], (*sums)[7], 1u, 2u, m0, n0, lane);
        }
    }
    if PARTS_M > 2u {
        write_pair((*sums)[8], (*sums)[9], 2u, 0u, m0, n0, lane);
        write_pair((*sums)[12], (*sums)[13], 3u, 0u, m0, n0, lane);
        if PARTS_N > 2u {
            write_pair((*sums)[10], (*sums)[11], 2u, 2u, m0, n0, lane);
            write_pair((*sums)[14], (*sums)[15], 3u, 2u, m0, n0, lane);
        }
    }
}
