// Eight numbers that lie in memory as floats.
#import narrow

struct Raw {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn raw_low(raw: Raw) -> vec4<f16> {
    return narrow(raw.low);
}

fn raw_high(raw: Raw) -> vec4<f16> {
    return narrow(raw.high);
}
