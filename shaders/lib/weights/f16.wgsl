// 16-bit floats, two to a word.
const UNIT: u32 = 8u; // elements that an invocation loads at once
alias Unit = vec4<u32>;
alias Raw = array<Unit, 4>;

fn unit_raw(row: u32, unit: u32) -> Unit {
    return w[row + unit];
}

fn unit_values(v: Unit) -> array<vec4<f32>, 2> {
    return array<vec4<f32>, 2>(vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)),
                               vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w)));
}

#import weights/blocks
