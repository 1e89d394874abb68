// The product of two tiles by cooperative matrices of SIDE x SIDE. Subgroups form a grid of GROUPS_M x GROUPS_N x GROUPS_K:
// each has PARTS_M x PARTS_N matrices of the tile (1, 2 or 4 each way) and its share of TILE_K. Written out instead of in
// loops: matrices in an array stay in registers only where every index is a constant.

const PITCH = TILE_K / 4u + 2u; // 16 bytes more than a row, so that eight rows lie in different banks
const FOURS = SIDE * SIDE / 4u; // vectors of four in a matrix

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
