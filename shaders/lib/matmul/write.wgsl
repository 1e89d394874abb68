// Sums as elements of y, which lies at OUTPUT. finish(column of y, sum): what is done to a sum before it is written, FINISHES
// where that is anything (of matrices, besides what they begin with); columns(): those that are written.

#ifdef HALVES
#ifdef COOP_MATRIX
#import narrow

@group(0) @binding(OUTPUT) var<storage, read_write> y: array<vec4<f16>>; // y[M, y_stride / 4]

// Columns n to n + 3: halves are written in multiples of four columns.
fn write_four(m: u32, n: u32, sums: vec4<f32>) {
    if WHOLE || (m < params.m && n < columns()) {
        let column = params.y_offset + n;
        let out = vec4<f32>(finish(column, sums.x), finish(column + 1u, sums.y), finish(column + 2u, sums.z),
                            finish(column + 3u, sums.w));
        y[(m * params.y_stride + column) / 4u] = narrow(out);
    }
}
#else
@group(0) @binding(OUTPUT) var<storage, read_write> y: array<f16>; // y[M, y_stride]

fn write(m: u32, n: u32, sum: f32) {
    if m < params.m && n < columns() {
        let column = params.y_offset + n;
        y[m * params.y_stride + column] = f16(clamp(finish(column, sum), -65504.0, 65504.0));
    }
}
#endif
#else
@group(0) @binding(OUTPUT) var<storage, read_write> y: array<f32>; // y[M, y_stride]

fn write(m: u32, n: u32, sum: f32) {
    if WHOLE || (m < params.m && n < columns()) {
        let column = params.y_offset + n;
        let at = m * params.y_stride + column;
        if params.accumulate != 0u {
            y[at] += sum;
        } else {
            y[at] = finish(column, sum);
        }
    }
}

#ifdef COOP_MATRIX
fn write_four(m: u32, n: u32, sums: vec4<f32>) {
    write(m, n, sums.x);
    write(m, n + 1u, sums.y);
    write(m, n + 2u, sums.z);
    write(m, n + 3u, sums.w);
}

// naga 30 emits what a store's arguments compute after the store itself, hence the names for them.
fn write_matrix(sum: MatC, at: u32) {
    let stride = params.y_stride;
    if params.accumulate != 0u {
        let total = coopLoadT<MatC>(&y[at], stride) + sum;
        coopStoreT(total, &y[at], stride);
    } else {
        coopStoreT(sum, &y[at], stride);
    }
}

// A tile that lies wholly within y, whose rows begin at multiples of 16 bytes.
fn write_whole(sums: ptr<function, Sums>, m0: u32, n0: u32, lane: u32) {
    let subgroup = lane / SUBGROUP;
    let m = m0 + subgroup % GROUPS_M * (PARTS_M * SIDE);
    let n = n0 + subgroup / GROUPS_M % GROUPS_N * (PARTS_N * SIDE);
    let at = m * params.y_stride + params.y_offset + n;
    let down = SIDE * params.y_stride;
    write_matrix((*sums)[0], at);
    if PARTS_N > 1u {
        write_matrix((*sums)[1], at + SIDE);
    }
    if PARTS_N > 2u {
        write_matrix((*sums)[2], at + 2u * SIDE);
        write_matrix((*sums)[3], at + 3u * SIDE);
    }
    if PARTS_M > 1u {
        write_matrix((*sums)[4], at + down);
        if PARTS_N > 1u {
            write_matrix((*sums)[5], at + down + SIDE);
        }
        if PARTS_N > 2u {
            write_matrix((*sums)[6], at + down + 2u * SIDE);
            write_matrix((*sums)[7], at + down + 3u * SIDE);
        }
    }
    if PARTS_M > 2u {
        write_matrix((*sums)[8], at + 2u * down);
        if PARTS_N > 1u {
            write_matrix((*sums)[9], at + 2u * down + SIDE);
        }
        if PARTS_N > 2u {
            write_matrix((*sums)[10], at + 2u * down + 2u * SIDE);
            write_matrix((*sums)[11], at + 2u * down + 3u * SIDE);
        }
        write_matrix((*sums)[12], at + 3u * down);
        if PARTS_N > 1u {
            write_matrix((*sums)[13], at + 3u * down + SIDE);
        }
        if PARTS_N > 2u {
            write_matrix((*sums)[14], at + 3u * down + 2u * SIDE);
            write_matrix((*sums)[15], at + 3u * down + 3u * SIDE);
        }
    }
}
#endif
#endif
