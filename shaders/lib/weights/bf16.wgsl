// The upper halves of 32-bit floats, two to a word.
const UNIT: u32 = 8u; // elements that an invocation loads at once
alias Unit = vec4<u32>;
alias Raw = array<Unit, 4>;

fn bf16_pairs(a: u32, b: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}

fn unit_raw(row: u32, unit: u32) -> Unit {
    return w[row + unit];
}

fn unit_values(v: Unit) -> array<vec4<f32>, 2> {
    return array<vec4<f32>, 2>(bf16_pairs(v.x, v.y), bf16_pairs(v.z, v.w));
}

#import weights/blocks
