use super::*;
use crate::ErrorKind;

/// The stored blocks of a format and what the `gguf` package makes of them.
macro_rules! fixtures {
    ($($dtype:ident $name:literal),* $(,)?) => {
        [$((
            DType::$dtype,
            include_bytes!(concat!("../testdata/quant/", $name, ".blocks")).as_slice(),
            include_bytes!(concat!("../testdata/quant/", $name, ".values")).as_slice(),
        )),*]
    };
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn blocks_are_read_as_the_gguf_package_reads_them_bit_for_bit() {
    for (dtype, blocks, expected) in fixtures![
        F32 "f32", F16 "f16", BF16 "bf16", Q4_0 "q4_0", Q4_1 "q4_1", Q5_0 "q5_0", Q5_1 "q5_1", Q8_0 "q8_0",
        Q4_K "q4_k", Q5_K "q5_k", Q6_K "q6_k",
    ] {
        let expected = floats(expected);
        let mut found = vec![0.0; expected.len()];
        dequantize(dtype, blocks, &mut found).unwrap();
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Which NaN comes out of a product of NaNs is up to the processor.
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{dtype}, value {i}: found {found:e}, expected {expected:e}");
        }
    }
}

fn rows() -> Vec<f32> {
    floats(include_bytes!("../testdata/quant/rows.values"))
}

#[test]
fn plain_formats_and_blocks_of_32_are_written_as_the_gguf_package_writes_them() {
    let rows = rows();
    for (dtype, expected) in [
        (DType::F16, include_bytes!("../testdata/quant/rows.f16").as_slice()),
        (DType::BF16, include_bytes!("../testdata/quant/rows.bf16")),
        (DType::Q4_0, include_bytes!("../testdata/quant/rows.q4_0")),
        (DType::Q4_1, include_bytes!("../testdata/quant/rows.q4_1")),
        (DType::Q5_0, include_bytes!("../testdata/quant/rows.q5_0")),
        (DType::Q5_1, include_bytes!("../testdata/quant/rows.q5_1")),
        (DType::Q8_0, include_bytes!("../testdata/quant/rows.q8_0")),
    ] {
        let mut found = Vec::new();
        quantize(dtype, &rows, &mut found).unwrap();
        assert_eq!(found.len(), expected.len());
        let size = dtype.block_bytes();
        for (i, (found, expected)) in found.chunks(size).zip(expected.chunks(size)).enumerate() {
            assert_eq!(found, expected, "{dtype}, block {i}");
        }
    }
}

fn range(x: &[f32]) -> (f32, f32) {
    (x.iter().fold(f32::INFINITY, |a, &b| a.min(b)), x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)))
}

/// The largest error that a block of a format of 32 may have, from the spacing of its codes. A half-precision scale or
/// minimum is off by 2^-11 of itself, which moves a value by that share of the block's largest magnitude, `a`; a
/// subnormal one by up to 2^-25, times the code.
fn bound_of_32(dtype: DType, x: &[f32]) -> f32 {
    let (low, high) = range(x);
    let (a, span, rounded, subnormal) = (low.abs().max(high.abs()), high - low, 2f32.powi(-11), 2f32.powi(-25));
    match dtype {
        DType::F32 => 0.0,
        // Half a unit in the last of 11 or 8 bits.
        DType::F16 => a * rounded + subnormal,
        DType::BF16 => a * 2f32.powi(-8),
        // A whole step: codes end one short on the side away from the largest value.
        DType::Q4_0 => a / 8.0 * 1.001 + a * rounded + 8.0 * subnormal,
        DType::Q5_0 => a / 16.0 * 1.001 + a * rounded + 16.0 * subnormal,
        // Half a step; scale and minimum are both rounded.
        DType::Q4_1 => span / 15.0 * 0.501 + (span + a) * rounded + 16.0 * subnormal,
        DType::Q5_1 => span / 31.0 * 0.501 + (span + a) * rounded + 32.0 * subnormal,
        DType::Q8_0 => a / 127.0 * 0.501 + a * rounded + 127.0 * subnormal,
        _ => unreachable!("a K-quant"),
    }
}

/// The largest root mean square error that a block of a K-quant may have: half a step of its widest sub-block, and what
/// rounding scales (and minimums) to 6 or 8 bits and half precision moves a value at the end of the range.
fn bound_of_256(dtype: DType, x: &[f32]) -> f32 {
    let (mut span, mut a) = (0f32, 0f32);
    for part in x.chunks(if dtype == DType::Q6_K { 16 } else { 32 }) {
        let (low, high) = range(part);
        span = span.max(high.max(0.0) - low.min(0.0));
        a = a.max(low.abs().max(high.abs()));
    }
    let rounded = 2f32.powi(-11);
    match dtype {
        DType::Q4_K => span / 15.0 * 0.5 + (span + a) * (0.5 / 63.0 + rounded),
        DType::Q5_K => span / 31.0 * 0.5 + (span + a) * (0.5 / 63.0 + rounded),
        // A whole step, as for Q4_0.
        _ => a / 32.0 + a * (0.5 / 127.0 + rounded),
    }
}

#[test]
fn what_is_quantised_comes_back_within_the_spacing_of_codes() {
    let rows = rows();
    for dtype in DType::WEIGHTS {
        let mut bytes = Vec::new();
        quantize(dtype, &rows, &mut bytes).unwrap();
        let mut back = vec![0.0; rows.len()];
        dequantize(dtype, &bytes, &mut back).unwrap();
        let len = if dtype.block_len() == 256 { 256 } else { 32 };
        for (i, (x, y)) in rows.chunks(len).zip(back.chunks(len)).enumerate() {
            let (error, bound) = if len == 32 {
                let largest = x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                (largest, bound_of_32(dtype, x))
            } else {
                let sum: f32 = x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum();
                ((sum / 256.0).sqrt(), bound_of_256(dtype, x))
            };
            assert!(error <= bound, "{dtype}, block {i}: error {error:e}, expected at most {bound:e}");
        }
    }
}

/// What an error at each value weighs in the search of a K-quant.
fn weights(dtype: DType, x: &[f32; 256]) -> Vec<f32> {
    match dtype {
        DType::Q6_K => x.iter().map(|x| x * x).collect(),
        _ => x.as_chunks().0.iter().flat_map(k_quants::weights).collect(),
    }
}

/// The weighted error that the search of a K-quant works against.
fn weighted_error(dtype: DType, x: &[f32; 256], block: &[u8]) -> f64 {
    let mut y = [0.0; 256];
    dequantize(dtype, block, &mut y).unwrap();
    let weights = weights(dtype, x);
    (0..256).map(|i| f64::from(weights[i]) * f64::from(x[i] - y[i]).powi(2)).sum()
}

#[test]
fn the_search_beats_rounding_to_the_ends_of_the_range() {
    let spanning = |x: &[f32; 32], max_code: f32| {
        let (low, high) = k_quants::range(x);
        ((high - low) / max_code, -low)
    };
    let symmetric = |x: &[f32; 16]| x.iter().fold(0.0f32, |m, &x| if x.abs() > m.abs() { x } else { m }) / -32.0;
    let rows = rows();
    for (index, x) in rows.as_chunks::<256>().0.iter().enumerate() {
        let cases: [(DType, Vec<u8>, Vec<u8>); 3] = [
            (
                DType::Q4_K,
                k_quants::q4_k(x).unwrap().to_vec(),
                k_quants::q4_k_with(x, 0, |x| spanning(x, 15.0)).unwrap().to_vec(),
            ),
            (
                DType::Q5_K,
                k_quants::q5_k(x).unwrap().to_vec(),
                k_quants::q5_k_with(x, 0, |x| spanning(x, 31.0)).unwrap().to_vec(),
            ),
            (DType::Q6_K, k_quants::q6_k(x).unwrap().to_vec(), k_quants::q6_k_with(x, 0, symmetric).unwrap().to_vec()),
        ];
        for (dtype, searched, naive) in cases {
            let (searched, naive) = (weighted_error(dtype, x, &searched), weighted_error(dtype, x, &naive));
            // Rounding the block's scale to half precision comes after the search: a constant row is met exactly by
            // one of two equally good scales and not by the other.
            let weights = weights(dtype, x);
            let half: f64 = (0..256).map(|i| f64::from(weights[i]) * (f64::from(x[i]) / 2048.0).powi(2)).sum();
            assert!(searched <= naive + half, "{dtype}, row {index}: searched {searched:e}, naive {naive:e}");
            // On rows 0 to 7, which are spread out, it must pay: the least gain on them is 5 %.
            assert!(index > 7 || searched <= 0.96 * naive, "{dtype}, row {index}: {searched:e} against {naive:e}");
        }
    }
}

#[test]
fn wrong_lengths_and_values_are_errors() {
    for dtype in DType::WEIGHTS {
        let (len, size) = (dtype.block_len(), dtype.block_bytes());
        let mut out = vec![0.0; 2 * len];
        for bytes in [0, size, 2 * size - 1, 2 * size + 1] {
            let error = dequantize(dtype, &vec![0; bytes], &mut out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Shape, "{dtype}, {bytes} bytes");
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = vec![1.0; 4 * len];
            row[3 * len - 1] = bad;
            let mut out = vec![7];
            let error = quantize(dtype, &row, &mut out).unwrap_err();
            assert!(error.to_string().contains(&format!("value {} ", 3 * len - 1)), "{dtype}: {error}");
            assert_eq!(out, [7], "{dtype}");
        }
        if len > 1 {
            assert!(dequantize(dtype, &vec![0; size], &mut vec![0.0; len - 1]).is_err(), "{dtype}");
            assert!(quantize(dtype, &vec![0.0; len + 1], &mut Vec::new()).is_err(), "{dtype}");
        }
        if dtype != DType::F32 {
            let mut row = vec![1.0; 2 * len];
            row[2 * len - 1] = f32::MAX;
            let mut out = vec![7];
            let error = quantize(dtype, &row, &mut out).unwrap_err();
            assert!(error.to_string().contains(&format!("values {len} to {}", 2 * len - 1)), "{dtype}: {error}");
            assert_eq!(out, [7], "{dtype}");
        }
    }
    assert!(dequantize(DType::U32, &[0; 4], &mut [0.0]).is_err_and(|e| e.kind() == ErrorKind::Unsupported));
    assert!(quantize(DType::U32, &[0.0], &mut Vec::new()).is_err_and(|e| e.kind() == ErrorKind::Unsupported));
}

#[test]
fn zeros_and_the_smallest_numbers_stay_finite() {
    for dtype in DType::WEIGHTS {
        for value in [0.0, -0.0, f32::from_bits(1), -f32::from_bits(1), f32::MIN_POSITIVE, 1e-20, -1e-8] {
            let mut row = vec![0.0; 256];
            row[5] = value;
            row[70] = -value;
            let mut bytes = Vec::new();
            quantize(dtype, &row, &mut bytes).unwrap();
            let mut back = vec![1.0; 256];
            dequantize(dtype, &bytes, &mut back).unwrap();
            // Below half precision's subnormals: everything may become 0, nothing anything larger than twice the value.
            for (i, back) in back.iter().enumerate() {
                assert!(back.abs() <= 2.0 * value.abs().max(6e-8), "{dtype}, {value:e}: element {i} is {back:e}");
            }
        }
    }
}
