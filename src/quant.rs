//! Tensor formats on the CPU, plainly: the oracle that the shaders of `lib/weights` are held against, and what
//! `quantize` writes files with. One function a format and direction, no tuning for speed.
//!
//! The formats are GGML's (source of the layouts: `ggml-common.h` and `ggml-quants.c` of llama.cpp); [`dequantize`]
//! gives the same bits as the `gguf` package on PyPI.

mod decode;
mod encode;
mod k_quants;

#[cfg(test)]
mod tests;

use crate::dtype::DType;
use crate::error::{Error, Result};

/// Turns whole blocks into floats.
///
/// # Errors
/// `Shape` where `bytes` are no whole blocks or `out` has another length than they hold; `Unsupported` for formats that
/// are no weights.
///
/// ```
/// use anygpu::{DType, quant};
/// let row: Vec<f32> = (0..32).map(|i| i as f32 - 16.0).collect();
/// let mut blocks = Vec::new();
/// quant::quantize(DType::Q8_0, &row, &mut blocks)?;
/// let mut back = [0.0; 32];
/// quant::dequantize(DType::Q8_0, &blocks, &mut back)?;
/// // Half a step of 16 / 127, and the rounding of the scale to half precision.
/// assert!(row.iter().zip(back).all(|(a, b)| (a - b).abs() < 0.07));
/// # Ok::<(), anygpu::Error>(())
/// ```
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let expected = dtype.bytes(out.len() as u64)?;
    if bytes.len() as u64 != expected {
        let (found, elements) = (bytes.len(), out.len());
        return Err(Error::shape(format!("{elements} elements of {dtype}: found {found} bytes, expected {expected}")));
    }
    match dtype {
        DType::F32 => decode_blocks(bytes, out, decode::f32),
        DType::F16 => decode_blocks(bytes, out, decode::f16),
        DType::BF16 => decode_blocks(bytes, out, decode::bf16),
        DType::Q4_0 => decode_blocks(bytes, out, decode::q4_0),
        DType::Q4_1 => decode_blocks(bytes, out, decode::q4_1),
        DType::Q5_0 => decode_blocks(bytes, out, decode::q5_0),
        DType::Q5_1 => decode_blocks(bytes, out, decode::q5_1),
        DType::Q8_0 => decode_blocks(bytes, out, decode::q8_0),
        DType::Q4_K => decode_blocks(bytes, out, decode::q4_k),
        DType::Q5_K => decode_blocks(bytes, out, decode::q5_k),
        DType::Q6_K => decode_blocks(bytes, out, decode::q6_k),
        DType::U32 => return Err(no_weight(dtype)),
    }
    Ok(())
}

/// Turns a row of floats, whole blocks, into a format and appends it to `out`.
///
/// Q4_0 to Q8_0 are rounded as ggml's reference does, to the same bytes; for K-quants, scales and minimums are searched
/// (see the source). On an error `out` is as it was.
///
/// # Errors
/// `Shape` where the row is no whole number of blocks, holds a value that is not finite (its index is named), or one so
/// large that the format cannot hold it; `Unsupported` for formats that are no weights.
pub fn quantize(dtype: DType, row: &[f32], out: &mut Vec<u8>) -> Result<()> {
    dtype.bytes(row.len() as u64)?;
    if let Some(index) = row.iter().position(|value| !value.is_finite()) {
        return Err(Error::shape(format!("value {index} of the row: found {}, expected a finite number", row[index])));
    }
    match dtype {
        DType::F32 => encode_blocks(dtype, row, out, encode::f32),
        DType::F16 => encode_blocks(dtype, row, out, encode::f16),
        DType::BF16 => encode_blocks(dtype, row, out, encode::bf16),
        DType::Q4_0 => encode_blocks(dtype, row, out, encode::q4_0),
        DType::Q4_1 => encode_blocks(dtype, row, out, encode::q4_1),
        DType::Q5_0 => encode_blocks(dtype, row, out, encode::q5_0),
        DType::Q5_1 => encode_blocks(dtype, row, out, encode::q5_1),
        DType::Q8_0 => encode_blocks(dtype, row, out, encode::q8_0),
        DType::Q4_K => encode_blocks(dtype, row, out, k_quants::q4_k),
        DType::Q5_K => encode_blocks(dtype, row, out, k_quants::q5_k),
        DType::Q6_K => encode_blocks(dtype, row, out, k_quants::q6_k),
        DType::U32 => Err(no_weight(dtype)),
    }
}

fn no_weight(dtype: DType) -> Error {
    Error::unsupported(format!("{dtype} as the format of a weight: expected a float or quantised format"))
}

/// Applies `decode` to every block of `B` bytes and `N` elements; the caller has checked the lengths.
fn decode_blocks<const B: usize, const N: usize>(bytes: &[u8], out: &mut [f32], decode: fn(&[u8; B], &mut [f32; N])) {
    for (block, values) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, values);
    }
}

/// A block's scale or value came out too large for the format.
#[derive(Debug, PartialEq)]
struct TooLarge;

/// Appends every `N` values as a block of `B` bytes; the caller has checked the lengths.
fn encode_blocks<const B: usize, const N: usize>(
    dtype: DType,
    row: &[f32],
    out: &mut Vec<u8>,
    encode: fn(&[f32; N]) -> Result<[u8; B], TooLarge>,
) -> Result<()> {
    let before = out.len();
    for (index, values) in row.as_chunks().0.iter().enumerate() {
        match encode(values) {
            Ok(block) => out.extend_from_slice(&block),
            Err(TooLarge) => {
                out.truncate(before);
                let (first, last) = (index * N, index * N + N - 1);
                let largest = values.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
                return Err(Error::shape(format!(
                    "values {first} to {last} of the row: found {largest:e}, expected what {dtype} can hold"
                )));
            }
        }
    }
    Ok(())
}
