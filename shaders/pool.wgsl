// y[t] = the mean, the first or the last of a text's rows, divided by its length where asked for; one workgroup a text.
#import reduce

struct Params {
    texts: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>; // x[M, K]
@group(0) @binding(1) var<storage, read> texts: array<vec2<u32>>; // texts[S] = (first row, rows)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // y[S, K]
@group(0) @binding(15) var<uniform> params: Params;

#ifdef WRITABLE
var<workgroup> shared_text: vec2<u32>;
#endif

const HELD = (K + WORKGROUP - 1u) / WORKGROUP;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let index = group.x + group.y * groups.x;
    if index >= params.texts {
        return;
    }
#ifdef WRITABLE
    // The barriers of the sum depend on it, so the compiler has to know that it is the same in all invocations.
    if lane == 0u {
        shared_text = texts[index];
    }
    let text = workgroupUniformLoad(&shared_text);
#else
    let text = texts[index];
#endif
    if text.y == 0u {
        return;
    }
    var first = text.x;
    var end = text.x + text.y;
    if POOLING == 1u {
        end = first + 1u;
    } else if POOLING == 2u {
        first = end - 1u;
    }
    var held: array<f32, HELD>;
    for (var row = first; row < end; row++) {
        for (var i = 0u; i < HELD; i++) {
            let col = lane + i * WORKGROUP;
            if col < K {
                held[i] += x[row * K + col];
            }
        }
    }
    var scale = 1.0 / f32(end - first);
    if NORMALIZE {
        var squares = 0.0;
        for (var i = 0u; i < HELD; i++) {
            held[i] *= scale;
            squares += held[i] * held[i];
        }
        // As torch.nn.functional.normalize: a vector of zeros stays one.
        scale = 1.0 / max(sqrt(reduce_sum(squares, lane)), 1e-12);
    }
    for (var i = 0u; i < HELD; i++) {
        let col = lane + i * WORKGROUP;
        if col < K {
            y[index * K + col] = held[i] * scale;
        }
    }
}
