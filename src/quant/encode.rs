//! From floats to the plain formats, and to the blocks of 32 as ggml's `quantize_row_*_ref` make them, byte for byte.
//! The layouts are told in [`super::decode`].

use half::{bf16, f16};

use super::TooLarge;

/// `value` in half precision, little-endian.
pub(super) fn half_bytes(value: f32) -> Result<[u8; 2], TooLarge> {
    let value = f16::from_f32(value);
    if value.is_finite() { Ok(value.to_le_bytes()) } else { Err(TooLarge) }
}

pub(super) fn f32(x: &[f32; 1]) -> Result<[u8; 4], TooLarge> {
    Ok(x[0].to_le_bytes())
}

pub(super) fn f16(x: &[f32; 1]) -> Result<[u8; 2], TooLarge> {
    half_bytes(x[0])
}

pub(super) fn bf16(x: &[f32; 1]) -> Result<[u8; 2], TooLarge> {
    let value = bf16::from_f32(x[0]);
    if value.is_finite() { Ok(value.to_le_bytes()) } else { Err(TooLarge) }
}

pub(super) fn q4_0(x: &[f32; 32]) -> Result<[u8; 18], TooLarge> {
    let (d, q) = symmetric(x, 8.0, 15);
    let mut block = [0; 18];
    block[..2].copy_from_slice(&half_bytes(d)?);
    put_nibbles(&mut block[2..], &q);
    Ok(block)
}

pub(super) fn q4_1(x: &[f32; 32]) -> Result<[u8; 20], TooLarge> {
    let (d, min, q) = affine(x, 15);
    let mut block = [0; 20];
    block[..2].copy_from_slice(&half_bytes(d)?);
    block[2..4].copy_from_slice(&half_bytes(min)?);
    put_nibbles(&mut block[4..], &q);
    Ok(block)
}

pub(super) fn q5_0(x: &[f32; 32]) -> Result<[u8; 22], TooLarge> {
    let (d, q) = symmetric(x, 16.0, 31);
    let mut block = [0; 22];
    block[..2].copy_from_slice(&half_bytes(d)?);
    put_bits(&mut block[2..6], &q);
    put_nibbles(&mut block[6..], &q);
    Ok(block)
}

pub(super) fn q5_1(x: &[f32; 32]) -> Result<[u8; 24], TooLarge> {
    let (d, min, q) = affine(x, 31);
    let mut block = [0; 24];
    block[..2].copy_from_slice(&half_bytes(d)?);
    block[2..4].copy_from_slice(&half_bytes(min)?);
    put_bits(&mut block[4..8], &q);
    put_nibbles(&mut block[8..], &q);
    Ok(block)
}

pub(super) fn q8_0(x: &[f32; 32]) -> Result<[u8; 34], TooLarge> {
    let largest = x.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    let d = largest / 127.0;
    let inverse = inverse(d);
    let mut block = [0; 34];
    block[..2].copy_from_slice(&half_bytes(d)?);
    for i in 0..32 {
        block[2 + i] = (x[i] * inverse).round() as i8 as u8;
    }
    Ok(block)
}

/// `1 / d`, or 0 for a block of zeros and for one so small that its scale is 0 in half precision in any case.
fn inverse(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// A scale that puts the largest value by magnitude on code 0, which is `-half` steps, and the codes.
fn symmetric(x: &[f32; 32], half: f32, max_code: u8) -> (f32, [u8; 32]) {
    let largest = x.iter().fold(0.0f32, |max, &x| if x.abs() > max.abs() { x } else { max });
    let d = largest / -half;
    let inverse = inverse(d);
    (d, x.map(|x| ((x * inverse + (half + 0.5)) as u8).min(max_code)))
}

/// The scale, minimum and codes that span the range of the values.
fn affine(x: &[f32; 32], max_code: u8) -> (f32, f32, [u8; 32]) {
    let min = x.iter().fold(f32::INFINITY, |min, &x| min.min(x));
    let max = x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let d = (max - min) / f32::from(max_code);
    let inverse = inverse(d);
    (d, min, x.map(|x| (((x - min) * inverse + 0.5) as u8).min(max_code)))
}

/// Packs the lower 4 bits: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
fn put_nibbles(out: &mut [u8], q: &[u8; 32]) {
    for i in 0..16 {
        out[i] = q[i] & 15 | (q[i + 16] & 15) << 4;
    }
}

/// Packs the fifth bits, lowest first.
fn put_bits(out: &mut [u8], q: &[u8; 32]) {
    for i in 0..32 {
        out[i / 8] |= (q[i] >> 4 & 1) << (i % 8);
    }
}
