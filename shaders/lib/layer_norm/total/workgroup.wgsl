// A workgroup a row.
#import reduce

const_assert LANES == WORKGROUP;

fn row_of(workgroup: u32, index: u32) -> u32 {
    return workgroup;
}

fn total(value: f32, lane: u32) -> f32 {
    return reduce_sum(value, lane);
}
