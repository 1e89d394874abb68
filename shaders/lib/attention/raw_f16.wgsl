// Eight numbers that lie in memory as halves.
#import half

alias Raw = vec4<u32>;

// A bitcast would be free, but naga 30 has none from u32 to halves; loads of 8 bytes cost more than these conversions.
fn raw_low(raw: Raw) -> vec4<f16> {
    return vec4<f16>(half_unpack4(raw.xy));
}

fn raw_high(raw: Raw) -> vec4<f16> {
    return vec4<f16>(half_unpack4(raw.zw));
}
