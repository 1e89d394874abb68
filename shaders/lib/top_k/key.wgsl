// Candidates of a search: a key, which is larger for what is better, and an id.

const GROUP = 32u; // consecutive rows that are chosen together, and bits of a word of `removed`
const NONE = vec2<u32>(0u, 0xffffffffu); // no candidate, worse than all

// A number that grows with the score, 0 for NaN, which is never among the best. Both zeros are one.
fn key_of(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return 0u;
    }
    if (bits & 0x7fffffffu) == 0u {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
