// A block of 32 values, one in each of 32 neighbouring invocations of a subgroup of 32 or more. All of the subgroup take part.

fn spread_sum(value: f32) -> f32 {
    var sum = value;
    for (var i = 0u; i < 5u; i++) {
        sum += subgroupShuffleXor(sum, 1u << i);
    }
    return sum;
}

fn spread_max(value: f32) -> f32 {
    var largest = value;
    for (var i = 0u; i < 5u; i++) {
        largest = max(largest, subgroupShuffleXor(largest, 1u << i));
    }
    return largest;
}
