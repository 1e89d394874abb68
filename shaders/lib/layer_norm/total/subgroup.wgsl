// A subgroup a row: LANES is its size.
fn row_of(workgroup: u32, index: u32) -> u32 {
    return workgroup * (WORKGROUP / LANES) + index / LANES;
}

fn total(value: f32, lane: u32) -> f32 {
    return subgroupAdd(value);
}
