// The product of two tiles by cooperative matrices of SIDE x SIDE. Subgroups form a grid of GROUPS_M x GROUPS_N x GROUPS_K:
// each has PARTS_M x PARTS_N matrices of the tile (1, 2 or 4 each way) and its share of TILE_K. Written out instead of in
// loops: matrices in an array stay in registers only where every index is a constant.

const PITCH = TILE_K / 4u + 2u; // 16 bytes more than a row, so that eight rows lie in different banks
const FOURS = SIDE * SIDE / 4u; // vectors of four in a matrix

const_assert 4u * SUBGROUP % SIDE == 0u;

alias Sums = array<MatC, 16>; // row i, column j at 4 i + j

var<workgroup> x_tile: array<Vec4, TILE_M * PITCH>;
var<workgroup> w_tile: array<Vec4, TILE_N * PITCH>;
var<workgroup> parts: array<vec4<f32>, WORKGROUP / SUBGROUP * FOURS>; // a matrix of each subgroup

fn put_x(row: u32, i: u32, value: Vec4) {
    x_tile[row * PITCH + i] = value;
}

fn put_w(row: u32, i: u32, value: Vec4) {
    w_tile[row * PITCH + i] = value;
}

// Every row is `begin` of the columns from n on; of sums that are added up later, only those of the first subgroups.
fn begin_matrix(n: u32, lane: u32) -> MatC {
    let own = lane / SUBGROUP * FOURS;
    // An invocation's columns are the same in all of its rows.
    let column = n + 4u * lane % SIDE;
    var four = vec4<f32>(begin(column), begin(column + 1u), begin(column + 2u), begin(column + 3u));
    if GROUPS_K > 1u && lane / SUBGROUP >= GROUPS_M * GROUPS_N {
        four = vec4<f32>(0.0);
    }
    subgroupBarrier();
    for (var e = lane % SUBGROUP; e < FOURS; e += SUBGROUP) {
        parts[own + e] = four;
    }
    subgroupBarrier();
    return coopLoadT<MatC>(&parts[own], SIDE / 4u);
}

fn begin_sums(sums: ptr<function, Sums>, n0: u32, lane: u32) {
    if BEGINS {
        let n = params.y_offset + n0 + lane / SUBGROUP / GROUPS_M % GROUPS_N * (PARTS_N * SIDE);
        (*sums)[0] = begin_matrix(n, lane);
        if PARTS_N > 1u {
            (*sums)[1] = begin_matrix(n + SIDE, lane);
        }
        if PARTS_N > 2u {
            (*sums)[2] = begin_matrix(n + 2u * SIDE, lane);
            (*sums)[3] = begin_matrix(n + 3u * SIDE, lane);
        }
        if PARTS_M > 1u {
            (*sums)[4] = (*sums)[0];
            (*sums)[5] = (*sums)[1];
            (*sums)[6] = (*sums)[2];
            (*sums)[7] = (*sums)[3];
        }
        if PARTS_M > 2u {
            (*sums)[8] = (*sums)[0];
            (*sums)[9] = (*sums)[1];
            (*sums)[10] = (*sums)[2];
            (*sums)[11] = (*sums)[3];
            (*sums)[12] = (*sums)[0];
            (*sums)[13] = (*sums)[1];
            (*sums)[14] = (*sums)[2];
            (*sums)[15] = (*sums)[3];
        }
    }
}

fn multiply(sums: ptr<function, Sums>, lane: u32) {
    let subgroup = lane / SUBGROUP;
    let depth = TILE_K / GROUPS_K / 4u;
    let k = subgroup / (GROUPS_M * GROUPS_N) * depth;
    let row = subgroup % GROUPS_M * (PARTS_M * SIDE) * PITCH + k;
    let col = subgroup / GROUPS_M % GROUPS_N * (PARTS_N * SIDE) * PITCH + k;
    for (var i = 0u; i < depth; i += SIDE / 4u) {
        var a: array<MatA, 4>;
        var b: array<MatB, 4>;
        a[0] = coopLoadT<MatA>(&x_tile[row + i], PITCH);
        if PARTS_M > 1u {
            a[1] = coopLoadT<MatA>(&x_tile[row + i + 1u * SIDE * PITCH], PITCH);
        }
        if PARTS_M > 2u {
            a[2] = coopLoadT<MatA>(&x_tile[row + i + 2u * SIDE * PITCH], PITCH);
            a[3] = coopLoadT<MatA>(&x_tile[row + i + 3u * SIDE * PITCH], PITCH);
        }
        b[0] = coopLoad<MatB>(&w_tile[col + i], PITCH);
        (*sums)[0] = coopMultiplyAdd(a[0], b[0], (*sums)[0]);
        if PARTS_M > 1u {
            (*sums)[4] = coopMultiplyAdd(a[1], b[0], (*sums)[4]);
        }
        if PARTS_M > 2u {
            (*sums)[8] = coopMultiplyAdd(a[2], b[0], (*sums)[8]);
            (*sums)[12] = coopMultiplyAdd(a[3], b[0], (*sums)[12]);
        }
        if PARTS_N > 1u {
            b[1] = coopLoad<MatB>(&w_tile[col + i + 1u * SIDE * PITCH], PITCH);
            (*sums)[1] = coopMultiplyAdd(a[0], b[1], (*sums)[1]);
            if PARTS_M > 1u {
                (*sums)[5] = coopMultiplyAdd(a[1], b[1], (*sums)[5]);
            }
            if PARTS_M > 2u {
                (*sums)[9] = coopMultiplyAdd(a[2], b[1], (*sums)[9]);
                (*sums)[13] = coopMultiplyAdd(a[3], b[1], (*sums)[13]);
            }
        }
        if PARTS_N > 2u {
            b[2] = coopLoad<MatB>(&w_tile[col + i + 2u * SIDE * PITCH], PITCH);
            (*sums)[2] = coopMultiplyAdd(a[0], b[2], (*sums)[2]);
            if PARTS_M > 1u {
                (*sums)[6] = coopMultiplyAdd(a[1], b[2], (*sums)[6]);
            }
            if PARTS_M > 2u {
                (*sums)[10] = coopMultiplyAdd(a[2], b[2], (*sums)[10]);
                (*sums)[14] = coopMultiplyAdd(a[3], b[2], (*sums)[14]);
            }
            b[3] = coopLoad<MatB>(&w_tile[col + i + 3u * SIDE * PITCH], PITCH);
            (*sums)[3] = coopMultiplyAdd(a[0], b[3], (*sums)[3]);
            if PARTS_M > 1u {
                (*sums)[7] = coopMultiplyAdd(a[1], b[3], (*sums)[7]);
            }
            if PARTS_M > 2u {
                (*sums)[11] = coopMultiplyAdd(a[2], b[3], (*sums)[11]);
                (*sums)[15] = coopMultiplyAdd(a[3], b[3], (*sums)[15]);
            }
        }
    }
}
