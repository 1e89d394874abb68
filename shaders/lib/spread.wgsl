// A block of 32 values, one in each of 32 neighbouring invocations of a subgroup of 32 or more. All of the subgroup take part.

fn spread_sum(value: f32) -> f32 {
    var sum = value;
    for (var step = 1u; step < 32u; step *= 2u) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}

fn spread_max(value: f32) -> f32 {
    var largest = value;
    for (var step = 1u; step < 32u; step *= 2u) {
        largest = max(largest, subgroupShuffleXor(largest, step));
    }
    return largest;
}
