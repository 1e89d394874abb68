// Chooses the next token of each sequence from its logits, one workgroup a sequence, and advances the sequence's state.
// All sums that decide are sums of integers, so that their order cannot matter.

struct Params {
    rows: u32,
    first: u32, // the first row of outputs that logits hold
}

@group(0) @binding(0) var<storage, read> slot_of: array<u32>; // slot_of[R]
@group(0) @binding(1) var<storage, read> sampling: array<vec4<u32>>; // sampling[S, 2]: temperature, top_p, min_p, penalty as f32; top_k, penalty_last, seed low, seed high
@group(0) @binding(2) var<storage, read_write> logits: array<f32>; // logits[R, VOCAB]
@group(0) @binding(3) var<storage, read_write> slots: array<vec4<u32>>; // slots[S]: token, slot, position, active
@group(0) @binding(4) var<storage, read_write> history: array<u32>; // history[S, HISTORY]: the token at each position, modulo HISTORY
@group(0) @binding(15) var<uniform> params: Params;

var<workgroup> best_value: array<f32, WORKGROUP>;
var<workgroup> best_token: array<u32, WORKGROUP>;
var<workgroup> sums: array<f32, WORKGROUP>;
var<workgroup> counts: array<u32, WORKGROUP>;
var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> shared_a: u32;
var<workgroup> shared_b: u32;

const LOADS: u32 = 8u; // logits that an invocation loads at once

// Probabilities are counted in units of 2^-30.
const UNIT: f32 = 1073741824.0;

// An integer that orders as the float does.
fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// The upper half of a 64-bit product.
fn multiply_high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}

// pcg3d of Jarzynski and Olano, "Hash Functions for GPU Rendering", 2020.
fn random(input: vec3<u32>) -> u32 {
    var v = input * 1664525u + 1013904223u;
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v ^= v >> vec3<u32>(16u);
    return v.x + v.y * v.z;
}

fn sum_floats(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    sums[lane] = value;
    for (var i = countTrailingZeros(WORKGROUP); i > 0u; i--) {
        let step = 1u << (i - 1u);
        workgroupBarrier();
        if lane < step {
            sums[lane] += sums[lane + step];
        }
    }
    return workgroupUniformLoad(&sums[0]);
}

// The weight of a token in units of 2^-30 of the total.
fn weight_of(logit: f32, largest: f32, inverse_temperature: f32, total: f32) -> u32 {
    return u32(exp((logit - largest) * inverse_temperature) / total * UNIT);
}

// The largest key such that tokens of at least this key, among those of at least `floor`, reach `target`: a count of
// tokens where `total` is 0, else a sum of weights. A radix selection, eight bits a pass.
fn select_key(start: u32, floor: u32, initial_target: u32, largest: f32, total: f32, lane: u32) -> u32 {
    var prefix = 0u;
    var target_left = initial_target;
    for (var turn = 0u; turn < 4u; turn++) {
        let shift = 24u - 8u * turn;
        workgroupBarrier();
        for (var round = 0u; round < (256u + WORKGROUP - 1u) / WORKGROUP; round++) {
            let i = round * WORKGROUP + lane;
            if 256u % WORKGROUP != 0u && i >= 256u {
                break;
            }
            atomicStore(&bins[i], 0u);
        }
        workgroupBarrier();
        for (var round = 0u; round < (VOCAB + WORKGROUP - 1u) / WORKGROUP; round++) {
            let token = round * WORKGROUP + lane;
            if VOCAB % WORKGROUP != 0u && token >= VOCAB {
                break;
            }
            let logit = logits[start + token];
            let key = key_of(logit);
            if key >= floor && (turn == 0u || (key >> (shift + 8u)) == prefix) {
                var amount = 1u;
                if total > 0.0 {
                    amount = weight_of(logit, largest, 1.0, total);
                }
                atomicAdd(&bins[(key >> shift) & 255u], amount);
            }
        }
        workgroupBarrier();
        if lane == 0u {
            var reached = 0u;
            var bin = 0u;
            for (var i = 0u; i < 256u; i++) {
                let amount = atomicLoad(&bins[255u - i]);
                if reached + amount >= target_left {
                    bin = 255u - i;
                    break;
                }
                reached += amount;
            }
            shared_a = bin;
            shared_b = target_left - min(target_left, reached);
        }
        prefix = (prefix << 8u) | workgroupUniformLoad(&shared_a);
        target_left = workgroupUniformLoad(&shared_b);
    }
    return prefix;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.x + group.y * groups.x;
    if row >= params.rows {
        return;
    }
    let start = row * VOCAB;
    let slot = slot_of[params.first + row];
    let floats = bitcast<vec4<f32>>(sampling[2u * slot]);
    let temperature = floats.x;
    let top_p = floats.y;
    let min_p = floats.z;
    let penalty = floats.w;
    let integers = sampling[2u * slot + 1u];
    let top_k = integers.x;
    let position = slots[slot].z;

    // A token that occurred among the last ones is penalised once: at its last occurrence.
    if penalty != 1.0 {
        let window = min(min(integers.y, HISTORY), position + 1u);
        for (var i = lane; i < window; i += WORKGROUP) {
            let token = history[slot * HISTORY + (position - i) % HISTORY];
            var again = token >= VOCAB;
            for (var j = 0u; j < i; j++) {
                again = again || history[slot * HISTORY + (position - j) % HISTORY] == token;
            }
            if !again {
                let logit = logits[start + token];
                logits[start + token] = select(logit * penalty, logit / penalty, logit > 0.0);
            }
        }
        storageBarrier();
    }

    // The largest logit, at its lowest token.
    var value = -3.4e38;
    var at = 0u;
    for (var round = 0u; round < (VOCAB + LOADS * WORKGROUP - 1u) / (LOADS * WORKGROUP); round++) {
        let first = round * (LOADS * WORKGROUP) + lane;
        // All on their way before the first is looked at; those past the end are the last one again.
        var loaded: array<f32, LOADS>;
        for (var i = 0u; i < LOADS; i++) {
            loaded[i] = logits[start + min(first + i * WORKGROUP, VOCAB - 1u)];
        }
        for (var i = 0u; i < LOADS; i++) {
            if loaded[i] > value {
                value = loaded[i];
                at = min(first + i * WORKGROUP, VOCAB - 1u);
            }
        }
    }
    best_value[lane] = value;
    best_token[lane] = at;
    for (var i = countTrailingZeros(WORKGROUP); i > 0u; i--) {
        let step = 1u << (i - 1u);
        workgroupBarrier();
        if lane < step {
            let other = best_value[lane + step];
            let other_token = best_token[lane + step];
            if other > best_value[lane] || (other == best_value[lane] && other_token < best_token[lane]) {
                best_value[lane] = other;
                best_token[lane] = other_token;
            }
        }
    }
    let largest = workgroupUniformLoad(&best_value[0]);
    var next = workgroupUniformLoad(&best_token[0]);

    if temperature > 0.0 {
        var floor = 0u;
        if top_k > 0u && top_k < VOCAB {
            floor = select_key(start, 0u, top_k, largest, 0.0, lane);
        }
        if top_p < 1.0 {
            var part = 0.0;
            for (var round = 0u; round < (VOCAB + WORKGROUP - 1u) / WORKGROUP; round++) {
                let token = round * WORKGROUP + lane;
                if VOCAB % WORKGROUP != 0u && token >= VOCAB {
                    break;
                }
                let logit = logits[start + token];
                if key_of(logit) >= floor {
                    part += exp(logit - largest);
                }
            }
            let total = sum_floats(part, lane);
            let wanted = max(u32(top_p * UNIT), 1u);
            floor = max(floor, select_key(start, floor, wanted, largest, total, lane));
        }
        if min_p > 0.0 {
            floor = max(floor, key_of(largest + log(min_p)));
        }
        // The largest always stays.
        floor = min(floor, key_of(largest));

        let inverse = 1.0 / temperature;
        var part = 0.0;
        for (var round = 0u; round < (VOCAB + WORKGROUP - 1u) / WORKGROUP; round++) {
            let token = round * WORKGROUP + lane;
            if VOCAB % WORKGROUP != 0u && token >= VOCAB {
                break;
            }
            let logit = logits[start + token];
            if key_of(logit) >= floor {
                part += exp((logit - largest) * inverse);
            }
        }
        let total = sum_floats(part, lane);
        // Neighbouring tokens a lane, so that sums run in the order of tokens.
        let share = (VOCAB + WORKGROUP - 1u) / WORKGROUP;
        let from_token = min(lane * share, VOCAB);
        let to_token = min(from_token + share, VOCAB);
        var count = 0u;
        for (var token = from_token; token < to_token; token++) {
            let logit = logits[start + token];
            if key_of(logit) >= floor {
                count += weight_of(logit, largest, inverse, total);
            }
        }
        counts[lane] = count;
        workgroupBarrier();
        if lane == 0u {
            var all = 0u;
            for (var i = 0u; i < WORKGROUP; i++) {
                all += counts[i];
            }
            var drawn = multiply_high(random(vec3<u32>(integers.zw, position)), all);
            var owner = 0u;
            while owner + 1u < WORKGROUP && drawn >= counts[owner] {
                drawn -= counts[owner];
                owner++;
            }
            shared_a = owner;
            shared_b = drawn;
        }
        let owner = workgroupUniformLoad(&shared_a);
        let drawn = workgroupUniformLoad(&shared_b);
        if lane == owner {
            var left = drawn;
            var chosen = next;
            for (var token = from_token; token < to_token; token++) {
                let logit = logits[start + token];
                if key_of(logit) >= floor {
                    let weight = weight_of(logit, largest, inverse, total);
                    if left < weight {
                        chosen = token;
                        break;
                    }
                    left -= weight;
                }
            }
            shared_a = chosen;
        }
        next = workgroupUniformLoad(&shared_a);
    }

    if lane == 0u && slots[slot].w != 0u {
        slots[slot] = vec4<u32>(next, slot, position + 1u, 1u);
        history[slot * HISTORY + (position + 1u) % HISTORY] = next;
    }
}
