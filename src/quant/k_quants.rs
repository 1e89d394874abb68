//! From floats to K-quants, with a search for good scales and minimums.
//!
//! Rounding to the range's ends is not the best: a slightly smaller step that clips the rarest values often has a smaller
//! error. Each sub-block therefore tries several steps, solves for the best scale (and minimum) of the codes that each
//! gives by weighted least squares, and keeps the one with the smallest weighted error, the approach of ggml's
//! `make_qkx2_quants` and `make_qx_quants`. The scales are then rounded to 6 or 8 bits, which moves those of small
//! sub-blocks far beside a large one: the neighbours of the rounded ones are tried too, with codes chosen anew for each. The layouts are told in [`super::decode`].

use half::f16;

use super::TooLarge;
use super::encode::half_bytes;

/// Ranges below this become zeros: their scales are 0 in half precision in any case, and sums of their squares underflow.
const TINY: f32 = 1e-15;
/// Values above this no K-quant can hold (at most 65504 · 128 · 32); sums of their products stay finite below it.
const HUGE: f32 = 1e9;
/// How far around the rounded scale and minimum is searched.
const REACH: i32 = 1;

pub(super) fn q4_k(x: &[f32; 256]) -> Result<[u8; 144], TooLarge> {
    q4_k_with(x, REACH, |x| search_affine(x, 15, -1.0, 20))
}

pub(super) fn q5_k(x: &[f32; 256]) -> Result<[u8; 176], TooLarge> {
    q5_k_with(x, REACH, |x| search_affine(x, 31, -0.5, 15))
}

pub(super) fn q6_k(x: &[f32; 256]) -> Result<[u8; 210], TooLarge> {
    q6_k_with(x, REACH, search_symmetric)
}

/// A block of Q4_K; `fit` chooses a scale and minimum for each sub-block, whose rounded ones are then searched for
/// better ones up to `reach` steps away.
pub(super) fn q4_k_with(
    x: &[f32; 256],
    reach: i32,
    fit: impl Fn(&[f32; 32]) -> (f32, f32),
) -> Result<[u8; 144], TooLarge> {
    let Affine { header, q } = affine(x, 15, reach, fit)?;
    let mut block = [0; 144];
    block[..16].copy_from_slice(&header);
    put_nibbles(&mut block[16..], &q);
    Ok(block)
}

/// A block of Q5_K; `fit` and `reach` as in [`q4_k_with`].
pub(super) fn q5_k_with(
    x: &[f32; 256],
    reach: i32,
    fit: impl Fn(&[f32; 32]) -> (f32, f32),
) -> Result<[u8; 176], TooLarge> {
    let Affine { header, q } = affine(x, 31, reach, fit)?;
    let mut block = [0; 176];
    block[..16].copy_from_slice(&header);
    for i in 0..256 {
        block[16 + i % 32] |= (q[i] >> 4) << (i / 32);
    }
    put_nibbles(&mut block[48..], &q);
    Ok(block)
}

/// A block of Q6_K; `fit` chooses a scale of either sign for each sub-block, `reach` as in [`q4_k_with`].
pub(super) fn q6_k_with(x: &[f32; 256], reach: i32, fit: impl Fn(&[f32; 16]) -> f32) -> Result<[u8; 210], TooLarge> {
    check_size(x)?;
    let parts = x.as_chunks::<16>().0;
    let mut scales = [0.0f32; 16];
    for (scale, part) in scales.iter_mut().zip(parts) {
        *scale = fit(part);
    }
    // The largest by magnitude becomes -128, which makes use of the whole signed byte.
    let largest = scales.iter().fold(0.0f32, |max, &s| if s.abs() > max.abs() { s } else { max });
    let mut block = [0; 210];
    if largest.abs() < TINY {
        return Ok(block);
    }
    let d = half_bytes(largest / -128.0)?;
    block[208..].copy_from_slice(&d);
    let d = f16::from_le_bytes(d).to_f32();
    let code = |value: f32, step: f32| if step == 0.0 { 0.0 } else { nearest(value / step, -32.0, 31.0) };
    for (j, part) in parts.iter().enumerate() {
        let rounded = nearest(scales[j] * (-128.0 / largest), -128.0, 127.0) as i32;
        let error = |scale: i32| -> f32 {
            let step = d * scale as f32;
            sum::<16>(|i| (part[i] * (step * code(part[i], step) - part[i])).powi(2))
        };
        let scale = least((rounded - reach..=rounded + reach).map(|scale| scale.clamp(-128, 127)), rounded, error);
        block[192 + j] = scale as i8 as u8;
        let step = d * scale as f32;
        for (l, &value) in part.iter().enumerate() {
            let q = (code(value, step) + 32.0) as u8;
            let i = j * 16 + l;
            let (half, group, byte) = (i / 128, i % 128 / 32, i % 32);
            block[half * 64 + group % 2 * 32 + byte] |= (q & 15) << (group / 2 * 4);
            block[128 + half * 32 + byte] |= (q >> 4) << (2 * group);
        }
    }
    Ok(block)
}

/// What Q4_K and Q5_K share: both half-precision scales and the packed 6-bit ones, and the codes.
struct Affine {
    header: [u8; 16],
    q: [u8; 256],
}

fn affine(
    x: &[f32; 256],
    max_code: u8,
    reach: i32,
    fit: impl Fn(&[f32; 32]) -> (f32, f32),
) -> Result<Affine, TooLarge> {
    check_size(x)?;
    let parts = x.as_chunks::<32>().0;
    let mut fits = [(0.0f32, 0.0f32); 8];
    for (fitted, part) in fits.iter_mut().zip(parts) {
        *fitted = fit(part);
    }
    let largest_scale = fits.iter().fold(0.0, |max: f32, fit| max.max(fit.0));
    let largest_min = fits.iter().fold(0.0, |max: f32, fit| max.max(fit.1));
    let mut header = [0; 16];
    header[..2].copy_from_slice(&half_bytes(largest_scale / 63.0)?);
    header[2..4].copy_from_slice(&half_bytes(largest_min / 63.0)?);
    let d = f16::from_le_bytes([header[0], header[1]]).to_f32();
    let dmin = f16::from_le_bytes([header[2], header[3]]).to_f32();

    let code = |value: f32, step: f32, min: f32| {
        if step > 0.0 { nearest((value + min) / step, 0.0, f32::from(max_code)) } else { 0.0 }
    };
    let (mut scales, mut mins, mut q) = ([0u8; 8], [0u8; 8], [0u8; 256]);
    for (j, part) in parts.iter().enumerate() {
        let weights = weights(part);
        let real = |(scale, min): (i32, i32)| (d * scale as f32, dmin * min as f32);
        let error = |codes: (i32, i32)| -> f32 {
            let (step, min) = real(codes);
            sum::<32>(|i| weights[i] * (step * code(part[i], step, min) - min - part[i]).powi(2))
        };
        let rounded = (six_bits(fits[j].0, largest_scale), six_bits(fits[j].1, largest_min));
        let around = |code: i32| (code - reach..=code + reach).map(|code| code.clamp(0, 63));
        let pairs = around(rounded.0).flat_map(|scale| around(rounded.1).map(move |min| (scale, min)));
        let chosen = least(pairs, rounded, error);
        let (step, min) = real(chosen);
        (scales[j], mins[j]) = (chosen.0 as u8, chosen.1 as u8);
        for (q, &value) in q[j * 32..].iter_mut().zip(part) {
            *q = code(value, step, min) as u8;
        }
    }
    for j in 0..4 {
        header[4 + j] = scales[j] | scales[j + 4] >> 4 << 6;
        header[8 + j] = mins[j] | mins[j + 4] >> 4 << 6;
        header[12 + j] = scales[j + 4] & 15 | (mins[j + 4] & 15) << 4;
    }
    Ok(Affine { header, q })
}

/// The candidate with the least error; `first` where none is better.
fn least<T: Copy>(candidates: impl Iterator<Item = T>, first: T, error: impl Fn(T) -> f32) -> T {
    let start = (first, error(first));
    let better = |best: (T, f32), candidate: T| {
        let error = error(candidate);
        if error < best.1 { (candidate, error) } else { best }
    };
    candidates.fold(start, better).0
}

/// The sum of a term over `N` elements, in 8 lanes: in this order a compiler may use vector instructions.
fn sum<const N: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    for i in (0..N).step_by(8) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(i + lane);
        }
    }
    lanes.iter().sum()
}

/// The nearest integer from `low` to `high`, both within ±2^22, ties to even. Adding 1.5 · 2^23 leaves no bits for a
/// fraction; `f32::round` is a call on processors without an instruction for it, in the innermost loop here.
fn nearest(value: f32, low: f32, high: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    value.max(low).min(high) + SHIFT - SHIFT
}

fn check_size(x: &[f32; 256]) -> Result<(), TooLarge> {
    if x.iter().all(|x| x.abs() <= HUGE) { Ok(()) } else { Err(TooLarge) }
}

/// `value` in 63rds of `largest`.
fn six_bits(value: f32, largest: f32) -> i32 {
    if largest < TINY { 0 } else { nearest(value * (63.0 / largest), 0.0, 63.0) as i32 }
}

/// The lower 4 bits: of each 64 codes, the first 32 go into the low nibbles of 32 bytes, the others into the high ones.
fn put_nibbles(out: &mut [u8], q: &[u8; 256]) {
    for i in 0..256 {
        out[i / 64 * 32 + i % 32] |= (q[i] & 15) << (i / 32 % 2 * 4);
    }
}

/// What an error at `x` weighs: large values matter more, the others not nothing.
pub(super) fn weights(x: &[f32; 32]) -> [f32; 32] {
    let mean_square = x.iter().map(|x| x * x).sum::<f32>() / 32.0;
    let rms = mean_square.sqrt();
    x.map(|x| rms + x.abs())
}

/// The scale and minimum, neither negative, with a small weighted error of `scale · q − min`, q from 0 to `max_code`.
///
/// Tries the step that spans the range, and `tries` + 1 more for `max_code + first + i / 10` steps to the range.
fn search_affine(x: &[f32; 32], max_code: u8, first: f32, tries: usize) -> (f32, f32) {
    let (low, high) = range(x);
    if high - low < TINY {
        return (0.0, -low);
    }
    let max_code = f32::from(max_code);
    let weights = weights(x);
    let error = |q: &[f32; 32], scale: f32, min: f32| -> f32 {
        sum::<32>(|i| weights[i] * (scale * q[i] - min - x[i]).powi(2))
    };
    let codes = |steps: f32| x.map(|x| nearest((x - low) * (steps / (high - low)), 0.0, max_code));

    let mut best = ((high - low) / max_code, -low);
    let mut best_error = error(&codes(max_code), best.0, best.1);
    for i in 0..=tries {
        let q = codes(max_code + first + 0.1 * i as f32);
        let Some((scale, min)) = least_squares(x, &q, &weights) else { continue };
        let error = error(&q, scale, min);
        if error < best_error {
            (best, best_error) = ((scale, min), error);
        }
    }
    best
}

/// The range of the values, widened to hold 0, since minimums are not negative.
pub(super) fn range(x: &[f32; 32]) -> (f32, f32) {
    (x.iter().fold(0.0, |min, &x| min.min(x)), x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x)))
}

/// The scale and minimum, neither negative, with the smallest weighted error for these codes; none where the codes do
/// not determine them.
fn least_squares(x: &[f32; 32], q: &[f32; 32], weights: &[f32; 32]) -> Option<(f32, f32)> {
    let (w, wx) = (sum::<32>(|i| weights[i]), sum::<32>(|i| weights[i] * x[i]));
    let (wq, wqq) = (sum::<32>(|i| weights[i] * q[i]), sum::<32>(|i| weights[i] * q[i] * q[i]));
    let wxq = sum::<32>(|i| weights[i] * x[i] * q[i]);
    let determinant = w * wqq - wq * wq;
    if determinant <= 0.0 {
        return None;
    }
    let scale = (w * wxq - wx * wq) / determinant;
    let offset = (wqq * wx - wq * wxq) / determinant;
    let (scale, min) = if offset > 0.0 { (wxq / wqq, 0.0) } else { (scale, -offset) };
    (scale > 0.0).then_some((scale, min))
}

/// The scale, of either sign, with a small error of `scale · q`, q from -32 to 31, each value's error weighted by its
/// square. Tries steps that put the largest value on codes from -31.1 to -32.9.
fn search_symmetric(x: &[f32; 16]) -> f32 {
    let largest = x.iter().fold(0.0f32, |max, &x| if x.abs() > max.abs() { x } else { max });
    if largest.abs() < TINY {
        return 0.0;
    }
    let mut best = 0.0;
    // The weighted error is a constant less (Σ w·x·q)² / Σ w·q²: the largest quotient wins. In f64, for squares.
    let mut best_gain = 0.0f64;
    for i in std::iter::once(0).chain(-9..=9) {
        let inverse = -(32.0 + 0.1 * i as f32) / largest;
        let q = x.map(|x| nearest(x * inverse, -32.0, 31.0));
        let (wxq, wqq) = (sum::<16>(|i| x[i].powi(3) * q[i]), sum::<16>(|i| (x[i] * q[i]).powi(2)));
        let gain = f64::from(wxq).powi(2) / f64::from(wqq);
        if gain > best_gain {
            (best, best_gain) = (wxq / wqq, gain);
        }
    }
    best
}
