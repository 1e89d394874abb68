//! From blocks to floats. Every product and sum is rounded to f32, in this order; none is fused.

use half::{bf16, f16};

/// A half-precision number at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

pub(super) fn f32(block: &[u8; 4], y: &mut [f32; 1]) {
    y[0] = f32::from_le_bytes(*block);
}

pub(super) fn f16(block: &[u8; 2], y: &mut [f32; 1]) {
    y[0] = half_at(block, 0);
}

pub(super) fn bf16(block: &[u8; 2], y: &mut [f32; 1]) {
    y[0] = bf16::from_le_bytes(*block).to_f32();
}

/// `d · (q − 8)`. Layout: d, 16 bytes of q: the low nibbles are elements 0 to 15, the high ones 16 to 31.
pub(super) fn q4_0(block: &[u8; 18], y: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for i in 0..32 {
        y[i] = d * (nibble(&block[2..], i) as f32 - 8.0);
    }
}

/// `d · q + m`. Layout: d, m, 16 bytes of q as in [`q4_0`].
pub(super) fn q4_1(block: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for i in 0..32 {
        y[i] = d * nibble(&block[4..], i) as f32 + m;
    }
}

/// `d · (q − 16)`. Layout: d, 32 fifth bits, 16 bytes of the other four as in [`q4_0`].
pub(super) fn q5_0(block: &[u8; 22], y: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for i in 0..32 {
        let q = nibble(&block[6..], i) | bit(&block[2..], i) << 4;
        y[i] = d * (q as f32 - 16.0);
    }
}

/// `d · q + m`. Layout: d, m, 32 fifth bits, 16 bytes of the other four as in [`q4_0`].
pub(super) fn q5_1(block: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for i in 0..32 {
        let q = nibble(&block[8..], i) | bit(&block[4..], i) << 4;
        y[i] = d * q as f32 + m;
    }
}

/// `d · q`. Layout: d, 32 signed bytes.
pub(super) fn q8_0(block: &[u8; 34], y: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for i in 0..32 {
        y[i] = d * (block[2 + i] as i8) as f32;
    }
}

/// `(d · scale) · q − (dmin · min)`, a scale and a minimum for each 32 elements. Layout: d, dmin, 12 bytes of packed
/// 6-bit scales and minimums, 128 bytes of q: each 32 bytes hold a sub-block in the low nibbles and the next in the high.
pub(super) fn q4_k(block: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let qs = &block[16..];
    for j in 0..8 {
        let (scale, min) = scale_and_min(&block[4..16], j);
        let (d, m) = (d * scale as f32, dmin * min as f32);
        for l in 0..32 {
            let q = qs[j / 2 * 32 + l] >> (j % 2 * 4) & 15;
            y[j * 32 + l] = d * q as f32 - m;
        }
    }
}

/// As [`q4_k`], with 32 bytes of fifth bits before q: bit j of byte l belongs to element l of sub-block j.
pub(super) fn q5_k(block: &[u8; 176], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (qh, qs) = (&block[16..48], &block[48..]);
    for j in 0..8 {
        let (scale, min) = scale_and_min(&block[4..16], j);
        let (d, m) = (d * scale as f32, dmin * min as f32);
        for l in 0..32 {
            let q = qs[j / 2 * 32 + l] >> (j % 2 * 4) & 15 | (qh[l] >> j & 1) << 4;
            y[j * 32 + l] = d * q as f32 - m;
        }
    }
}

/// `(d · scale) · (q − 32)`, a scale for each 16 elements. Layout: 128 bytes of low nibbles, 64 bytes of the upper two
/// bits, 16 signed bytes of scales, d. Each half of the block takes half of both: within it, group g of 32 elements has
/// its nibbles in bytes 32 · (g mod 2) and on, low for g < 2 and high for the others, its upper bits at 2 · g.
pub(super) fn q6_k(block: &[u8; 210], y: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for half in 0..2 {
        let (ql, qh) = (&block[half * 64..], &block[128 + half * 32..]);
        for i in 0..128 {
            let (g, l) = (i / 32, i % 32);
            let low = ql[g % 2 * 32 + l] >> (g / 2 * 4) & 15;
            let high = qh[l] >> (2 * g) & 3;
            let scale = block[192 + half * 8 + i / 16] as i8;
            y[half * 128 + i] = (d * scale as f32) * ((low | high << 4) as f32 - 32.0);
        }
    }
}

/// Element `i` of 32 in 16 bytes of nibbles.
fn nibble(qs: &[u8], i: usize) -> u8 {
    qs[i % 16] >> (i / 16 * 4) & 15
}

/// Bit `i` of a bit set, lowest first.
fn bit(bits: &[u8], i: usize) -> u8 {
    bits[i / 8] >> (i % 8) & 1
}

/// The 6-bit scale and minimum of sub-block `j` of 8. Bytes 0 to 3 hold scales 0 to 3, bytes 4 to 7 minimums 0 to 3, in
/// their lower 6 bits; bytes 8 to 11 hold the lower 4 bits of scales (low nibble) and minimums (high nibble) 4 to 7,
/// whose upper 2 bits are the upper bits of bytes 0 to 3 and 4 to 7.
fn scale_and_min(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}
