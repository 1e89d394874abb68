// Fills a packed weight with random values of a sensible size, for timing without a file.

struct Params {
    rows: u32,
    row_words: u32,
    quant_words: u32, // leading words of a row that may hold any bits
    pairs_stride: u32, // of the rest: words from one pair of f16 to the next, other words being any bits; 0: no f16
    seed: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> w: array<u32>; // w[N, row_words]
@group(0) @binding(15) var<uniform> params: Params;

// Wang's integer hash.
fn hash(value: u32) -> u32 {
    var v = (value ^ 61u) ^ (value >> 16u);
    v *= 9u;
    v ^= v >> 4u;
    v *= 0x27d4eb2du;
    return v ^ (v >> 15u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let stride = groups.x * groups.y * WORKGROUP;
    for (var i = id.x + id.y * groups.x * WORKGROUP; i < params.rows * params.row_words; i += stride) {
        let bits = hash(i ^ params.seed);
        let word = i % params.row_words;
        // Two numbers from -1 to 1, or from 1/4 to 1 where they are scales.
        let low = f32(bits & 0xffffu) / 65535.0;
        let high = f32(bits >> 16u) / 65535.0;
        var value = bits;
        if word >= params.quant_words {
            if params.pairs_stride == 0u {
                value = bitcast<u32>((2.0 * low - 1.0) * params.scale);
            } else if (word - params.quant_words) % params.pairs_stride == 0u {
                if SIGNED {
                    value = pack2x16float(vec2<f32>(2.0 * low - 1.0, 2.0 * high - 1.0) * params.scale);
                } else {
                    value = pack2x16float(vec2<f32>(0.25 + 0.75 * low, 0.25 + 0.75 * high) * params.scale);
                }
            }
        }
        w[i] = value;
    }
}
