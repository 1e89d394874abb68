// What the quantised formats share: a sub-block of 32 as bytes, scales and a minimum. Each format has its Raw, what is loaded
// of a sub-block and needs few registers until it is used, with weights_raw, weights_unpack and weights_values.
#import planes

struct Groups {
    q: array<u32, 8>, // group g holds elements 4g to 4g + 3
    scale: vec2<f32>, // of elements 0 to 15 and 16 to 31
    minimum: f32, // subtracted from every element
}

const UNIT: u32 = 32u; // elements that an invocation loads at once
alias Unit = Raw;

fn unit_raw(row: u32, unit: u32) -> Unit {
    return weights_raw(row, unit);
}

fn unit_values(raw: Unit) -> array<vec4<f32>, 8> {
    return weights_values(raw);
}

// The sub-block as packed bytes: element = scale * q - minimum.
fn weights_groups(row: u32, block: u32) -> Groups {
    return weights_unpack(weights_raw(row, block));
}

// The values of a sub-block.
fn weights_block(row: u32, block: u32) -> array<vec4<f32>, 8> {
    return weights_values(weights_raw(row, block));
}

// Values of bytes from 0 up.
fn values_of(groups: Groups) -> array<vec4<f32>, 8> {
    var out: array<vec4<f32>, 8>;
    for (var g = 0u; g < 8u; g++) {
        out[g] = groups.scale[g >> 2u] * from_bytes(groups.q[g]) - groups.minimum;
    }
    return out;
}

// Values of signed bytes, without a minimum.
fn values_of_signed(groups: Groups) -> array<vec4<f32>, 8> {
    var out: array<vec4<f32>, 8>;
    for (var g = 0u; g < 8u; g++) {
        out[g] = groups.scale[g >> 2u] * from_signed_bytes(groups.q[g]);
    }
    return out;
}
