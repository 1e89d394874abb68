// 32-bit floats.
const UNIT: u32 = 4u; // elements that an invocation loads at once
alias Unit = vec4<u32>;
alias Raw = array<Unit, 8>;

fn unit_raw(row: u32, unit: u32) -> Unit {
    return w[row + unit];
}

fn unit_values(v: Unit) -> array<vec4<f32>, 1> {
    return array<vec4<f32>, 1>(bitcast<vec4<f32>>(v));
}

#import weights/blocks
