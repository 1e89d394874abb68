//! How weights lie on the GPU: row by row, each row padded to 16 bytes, its blocks pulled apart into planes so that
//! neighbouring invocations read neighbouring 16 bytes. Not one bit is lost: [`unpack_row`] gives GGML's bytes back.
//!
//! A row of K elements, nb = K / 32 sub-blocks, sb = K / 256 super-blocks:
//!
//! | format | planes, in bytes |
//! |---|---|
//! | f32; f16, bf16 | elements |
//! | q8_0 | 32·nb quants, 2·nb scales |
//! | q4_0 | 16·nb nibbles, 2·nb scales |
//! | q4_1 | 16·nb nibbles, 4·nb (scale, minimum) |
//! | q5_0 | 16·nb nibbles, 4·nb fifth bits, 2·nb scales |
//! | q5_1 | 16·nb nibbles, 4·nb fifth bits, 4·nb (scale, minimum) |
//! | q4_k | 16·nb nibbles, 16·sb (d, dmin, 12 bytes of 6-bit scales) |
//! | q5_k | 16·nb nibbles, 4·nb fifth bits, 16·sb as q4_k |
//! | q6_k | 16·nb nibbles, 8·nb upper pairs of bits, 16·sb scales, 2·sb d |
//!
//! Nibbles of every format are in Q4_0's order: byte j of a sub-block holds element j below and element j + 16 above. So
//! 32-bit word g gives four neighbouring elements by one mask: *group* g (elements 4g + b, byte b) below and group g + 4
//! (elements 16 + 4g + b) above. Bit g of byte b of the fifth bits belongs to group g, byte b; the pair of bits 2f of
//! byte b of upper word h belongs to group 4h + f, byte b.
//!
//! ```
//! use anygpu::{DType, layout};
//!
//! let mut blocks = Vec::new();
//! anygpu::quant::quantize(DType::Q4_0, &[0.5; 64], &mut blocks)?;
//! let mut packed = vec![0; layout::row_bytes(DType::Q4_0, 64)];
//! layout::pack_row(DType::Q4_0, &blocks, &mut packed)?;
//! assert_eq!(layout::unpack_row(DType::Q4_0, 64, &packed)?, blocks);
//! # Ok::<(), anygpu::Error>(())
//! ```

use crate::dtype::DType;
use crate::error::{Error, Result};

/// Elements of the smallest unit that kernels decode.
pub const SUB_BLOCK: usize = 32;

/// Columns that a row is padded to with zeros: plain formats to whole sub-blocks; quantised ones are whole already.
pub fn padded_cols(dtype: DType, cols: usize) -> usize {
    if dtype.is_quantized() { cols } else { cols.next_multiple_of(SUB_BLOCK) }
}

/// Bytes of a row of `cols` elements on the GPU; `cols` is a multiple of the format's block.
pub fn row_bytes(dtype: DType, cols: usize) -> usize {
    planes(dtype, cols).iter().sum::<usize>().next_multiple_of(16)
}

/// Bytes of each plane of a row.
fn planes(dtype: DType, cols: usize) -> [usize; 4] {
    let (nb, sb) = (cols / 32, cols / 256);
    match dtype {
        DType::F32 | DType::U32 => [4 * cols, 0, 0, 0],
        DType::F16 | DType::BF16 => [2 * cols, 0, 0, 0],
        DType::Q8_0 => [32 * nb, 2 * nb, 0, 0],
        DType::Q4_0 => [16 * nb, 2 * nb, 0, 0],
        DType::Q4_1 => [16 * nb, 4 * nb, 0, 0],
        DType::Q5_0 => [16 * nb, 4 * nb, 2 * nb, 0],
        DType::Q5_1 => [16 * nb, 4 * nb, 4 * nb, 0],
        DType::Q4_K => [16 * nb, 16 * sb, 0, 0],
        DType::Q5_K => [16 * nb, 4 * nb, 16 * sb, 0],
        DType::Q6_K => [16 * nb, 8 * nb, 16 * sb, 2 * sb],
    }
}

/// Packs one row of GGML blocks into `out`, which is [`row_bytes`] long for [`padded_cols`]; padding becomes zero.
///
/// # Errors
/// `Shape` where a length does not fit.
pub fn pack_row(dtype: DType, row: &[u8], out: &mut [u8]) -> Result<()> {
    let blocks = row.len() / dtype.block_bytes();
    let cols = padded_cols(dtype, blocks * dtype.block_len());
    if !row.len().is_multiple_of(dtype.block_bytes()) || out.len() != row_bytes(dtype, cols) {
        return Err(Error::shape(format!(
            "a packed row of {cols} {dtype}: found {} bytes for {}, expected {}",
            out.len(),
            row.len(),
            row_bytes(dtype, cols)
        )));
    }
    let sizes = planes(dtype, cols);
    let used: usize = sizes.iter().sum();
    out[used..].fill(0);
    if !dtype.is_quantized() {
        out[..row.len()].copy_from_slice(row);
        out[row.len()..].fill(0);
        return Ok(());
    }
    let (p0, rest) = out.split_at_mut(sizes[0]);
    let (p1, rest) = rest.split_at_mut(sizes[1]);
    let (p2, rest) = rest.split_at_mut(sizes[2]);
    let p3 = &mut rest[..sizes[3]];
    for (i, block) in row.chunks_exact(dtype.block_bytes()).enumerate() {
        match dtype {
            DType::Q8_0 => {
                put(p1, i, &block[..2]);
                put(p0, i, &block[2..]);
            }
            DType::Q4_0 => {
                put(p1, i, &block[..2]);
                put(p0, i, &block[2..]);
            }
            DType::Q4_1 => {
                put(p1, i, &block[..4]);
                put(p0, i, &block[4..]);
            }
            DType::Q5_0 => {
                put(p2, i, &block[..2]);
                put(p1, i, &spread_fifth(word(&block[2..6])).to_le_bytes());
                put(p0, i, &block[6..]);
            }
            DType::Q5_1 => {
                put(p2, i, &block[..4]);
                put(p1, i, &spread_fifth(word(&block[4..8])).to_le_bytes());
                put(p0, i, &block[8..]);
            }
            DType::Q4_K => {
                put(p1, i, &block[..16]);
                for s in 0..8 {
                    put(p0, 8 * i + s, &k_nibbles(&block[16..], s));
                }
            }
            DType::Q5_K => {
                put(p2, i, &block[..16]);
                for s in 0..8 {
                    put(p0, 8 * i + s, &k_nibbles(&block[48..], s));
                    let bits = (0..32).fold(0, |bits, j| bits | u32::from(block[16 + j] >> s & 1) << j);
                    put(p1, 8 * i + s, &spread_fifth(bits).to_le_bytes());
                }
            }
            DType::Q6_K => {
                put(p2, i, &block[192..208]);
                put(p3, i, &block[208..210]);
                for s in 0..8 {
                    let quants: [u8; 32] = std::array::from_fn(|j| q6_get(block, 32 * s + j));
                    let nibbles: [u8; 16] = std::array::from_fn(|j| quants[j] & 15 | (quants[j + 16] & 15) << 4);
                    put(p0, 8 * i + s, &nibbles);
                    let mut upper = [0u8; 8];
                    for (j, quant) in quants.iter().enumerate() {
                        let (half, f, b) = (j / 16, j % 16 / 4, j % 4);
                        upper[4 * half + b] |= (quant >> 4) << (2 * f);
                    }
                    put(p1, 8 * i + s, &upper);
                }
            }
            DType::F32 | DType::F16 | DType::BF16 | DType::U32 => {}
        }
    }
    Ok(())
}

/// The GGML blocks of a packed row: the inverse of [`pack_row`]. `cols` counts the row's elements without padding.
///
/// # Errors
/// `Shape` where a length does not fit.
pub fn unpack_row(dtype: DType, cols: usize, packed: &[u8]) -> Result<Vec<u8>> {
    let bytes = dtype.bytes(cols as u64)? as usize;
    let padded = padded_cols(dtype, cols);
    if packed.len() != row_bytes(dtype, padded) {
        return Err(Error::shape(format!(
            "a packed row of {cols} {dtype}: found {} bytes, expected {}",
            packed.len(),
            row_bytes(dtype, padded)
        )));
    }
    if !dtype.is_quantized() {
        return Ok(packed[..bytes].to_vec());
    }
    let sizes = planes(dtype, cols);
    let (p0, rest) = packed.split_at(sizes[0]);
    let (p1, rest) = rest.split_at(sizes[1]);
    let (p2, p3) = rest.split_at(sizes[2]);
    let mut out = vec![0; bytes];
    for (i, block) in out.chunks_exact_mut(dtype.block_bytes()).enumerate() {
        match dtype {
            DType::Q8_0 => {
                block[..2].copy_from_slice(get(p1, i, 2));
                block[2..].copy_from_slice(get(p0, i, 32));
            }
            DType::Q4_0 => {
                block[..2].copy_from_slice(get(p1, i, 2));
                block[2..].copy_from_slice(get(p0, i, 16));
            }
            DType::Q4_1 => {
                block[..4].copy_from_slice(get(p1, i, 4));
                block[4..].copy_from_slice(get(p0, i, 16));
            }
            DType::Q5_0 => {
                block[..2].copy_from_slice(get(p2, i, 2));
                block[2..6].copy_from_slice(&gather_fifth(word(get(p1, i, 4))).to_le_bytes());
                block[6..].copy_from_slice(get(p0, i, 16));
            }
            DType::Q5_1 => {
                block[..4].copy_from_slice(get(p2, i, 4));
                block[4..8].copy_from_slice(&gather_fifth(word(get(p1, i, 4))).to_le_bytes());
                block[8..].copy_from_slice(get(p0, i, 16));
            }
            DType::Q4_K => {
                block[..16].copy_from_slice(get(p1, i, 16));
                for s in 0..8 {
                    k_set_nibbles(&mut block[16..], s, get(p0, 8 * i + s, 16));
                }
            }
            DType::Q5_K => {
                block[..16].copy_from_slice(get(p2, i, 16));
                for s in 0..8 {
                    k_set_nibbles(&mut block[48..], s, get(p0, 8 * i + s, 16));
                    let bits = gather_fifth(word(get(p1, 8 * i + s, 4)));
                    for j in 0..32 {
                        block[16 + j] |= (bits >> j & 1) as u8 * (1 << s);
                    }
                }
            }
            DType::Q6_K => {
                block[192..208].copy_from_slice(get(p2, i, 16));
                block[208..210].copy_from_slice(get(p3, i, 2));
                for s in 0..8 {
                    let (nibbles, upper) = (get(p0, 8 * i + s, 16), get(p1, 8 * i + s, 8));
                    for j in 0..32 {
                        let low = nibbles[j % 16] >> (4 * (j / 16)) & 15;
                        let high = upper[4 * (j / 16) + j % 4] >> (2 * (j % 16 / 4)) & 3;
                        q6_set(block, 32 * s + j, low | high << 4);
                    }
                }
            }
            DType::F32 | DType::F16 | DType::BF16 | DType::U32 => {}
        }
    }
    Ok(out)
}

fn put(plane: &mut [u8], index: usize, bytes: &[u8]) {
    plane[index * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
}

fn get(plane: &[u8], index: usize, bytes: usize) -> &[u8] {
    &plane[index * bytes..][..bytes]
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// Where the fifth bit of element j goes: bit `group` of byte `j % 4`.
fn fifth_bit(j: u32) -> u32 {
    8 * (j % 4) + j / 4
}

fn spread_fifth(bits: u32) -> u32 {
    (0..32).fold(0, |word, j| word | (bits >> j & 1) << fifth_bit(j))
}

fn gather_fifth(word: u32) -> u32 {
    (0..32).fold(0, |bits, j| bits | (word >> fifth_bit(j) & 1) << j)
}

/// Sub-block `s` of a K-quant's nibbles (pairs of sub-blocks share 32 bytes) in Q4_0's order.
fn k_nibbles(quants: &[u8], s: usize) -> [u8; 16] {
    let nibble = |j: usize| quants[32 * (s / 2) + j] >> (4 * (s % 2)) & 15;
    std::array::from_fn(|j| nibble(j) | nibble(j + 16) << 4)
}

fn k_set_nibbles(quants: &mut [u8], s: usize, nibbles: &[u8]) {
    for j in 0..32 {
        let nibble = nibbles[j % 16] >> (4 * (j / 16)) & 15;
        quants[32 * (s / 2) + j] |= nibble << (4 * (s % 2));
    }
}

/// Byte and shift of the lower four bits, byte and shift of the upper two, of element `e` of a Q6_K block.
fn q6_place(e: usize) -> (usize, usize, usize, usize) {
    let (half, quarter, l) = (e / 128, e % 128 / 32, e % 32);
    (64 * half + 32 * (quarter % 2) + l, 4 * (quarter / 2), 128 + 32 * half + l, 2 * quarter)
}

fn q6_get(block: &[u8], e: usize) -> u8 {
    let (low, low_shift, high, high_shift) = q6_place(e);
    block[low] >> low_shift & 15 | (block[high] >> high_shift & 3) << 4
}

fn q6_set(block: &mut [u8], e: usize, quant: u8) {
    let (low, low_shift, high, high_shift) = q6_place(e);
    block[low] |= (quant & 15) << low_shift;
    block[high] |= (quant >> 4) << high_shift;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_bit_for_bit() {
        let mut state = 1u32;
        for dtype in DType::WEIGHTS {
            for cols in [256, 768] {
                let row: Vec<u8> = (0..dtype.bytes(cols).unwrap())
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    })
                    .collect();
                let mut packed = vec![0xAA; row_bytes(dtype, cols as usize)];
                pack_row(dtype, &row, &mut packed).unwrap();
                assert_eq!(unpack_row(dtype, cols as usize, &packed).unwrap(), row, "{dtype} {cols}");
            }
        }
    }

    #[test]
    fn plain_rows_are_padded_with_zeros() {
        let row = [1u8; 2 * 40];
        let mut packed = vec![0xAA; row_bytes(DType::F16, padded_cols(DType::F16, 40))];
        pack_row(DType::F16, &row, &mut packed).unwrap();
        assert_eq!(packed.len(), 128);
        assert!(packed[80..].iter().all(|&byte| byte == 0));
        assert_eq!(unpack_row(DType::F16, 40, &packed).unwrap(), row);
        assert!(pack_row(DType::F16, &row, &mut packed[1..]).is_err());
    }
}
