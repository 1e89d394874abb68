// What the quantised formats share: a sub-block of 32 as bytes, scales and a minimum. Each format has its Raw, what is loaded
// of a sub-block and needs few registers until it is used, with weights_raw and weights_unpack,
// and says how many SCALES a sub-block has, whether its bytes are SIGNED, and whether scale and minimum are halves.
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

fn weights_values(raw: Raw) -> array<vec4<f32>, 8> {
    let groups = weights_unpack(raw);
    var out: array<vec4<f32>, 8>;
    for (var g = 0u; g < 8u; g++) {
        if SIGNED {
            out[g] = groups.scale[g >> 2u] * from_signed_bytes(groups.q[g]);
        } else {
            out[g] = groups.scale[g >> 2u] * from_bytes(groups.q[g]) - groups.minimum;
        }
    }
    return out;
}

#ifdef COOP_MATRIX
// The same in halves, of every four elements 0, 2, 1 and 3: so they come out of bytes two by two.
fn unit_halves(raw: Unit) -> array<vec4<f16>, 8> {
    var out: array<vec4<f16>, 8>;
    if HALF_SCALES {
        let groups = weights_unpack(raw);
        for (var g = 0u; g < 8u; g++) {
            let scale = vec4<f16>(f16(groups.scale[g >> 2u]));
            if SIGNED {
                out[g] = scale * halves_from_signed_bytes(groups.q[g]);
            } else {
                // Rounded once, as the product in f32 would be.
                out[g] = fma(scale, halves_from_bytes(groups.q[g]), vec4<f16>(f16(-groups.minimum)));
            }
        }
    } else {
        var values = weights_values(raw);
        for (var g = 0u; g < 8u; g++) {
            out[g] = vec4<f16>(values[g].xzyw);
        }
    }
    return out;
}
#endif
