//! Element and block formats of tensors: how many elements a block holds, how many bytes it takes.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The format of a tensor's elements. Quantised formats store blocks of elements that share scales; they are GGML's,
/// byte for byte (source: `ggml-common.h` of llama.cpp).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// 32 signed 4-bit values, one f16 scale.
    Q4_0,
    /// 32 unsigned 4-bit values, an f16 scale and an f16 minimum.
    Q4_1,
    /// 32 signed 5-bit values, one f16 scale.
    Q5_0,
    /// 32 unsigned 5-bit values, an f16 scale and an f16 minimum.
    Q5_1,
    /// 32 signed 8-bit values, one f16 scale.
    Q8_0,
    /// 256 4-bit values in 8 sub-blocks with 6-bit scales and minimums.
    Q4_K,
    /// 256 5-bit values in 8 sub-blocks with 6-bit scales and minimums.
    Q5_K,
    /// 256 6-bit values in 16 sub-blocks with 8-bit scales.
    Q6_K,
    /// Unsigned 32-bit integers: token ids, page tables, packed state. Never a file's weight.
    U32,
}

impl DType {
    /// The formats that a weight in a file can have.
    pub const WEIGHTS: [DType; 11] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
    ];

    /// Elements in a block; 1 for plain formats.
    pub const fn block_len(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 | DType::U32 => 1,
            DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 => 32,
            DType::Q4_K | DType::Q5_K | DType::Q6_K => 256,
        }
    }

    /// Bytes of a block in a GGUF file.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q8_0 => 34,
            DType::Q4_K => 144,
            DType::Q5_K => 176,
            DType::Q6_K => 210,
        }
    }

    /// Whether elements share scales.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// The lower-case name, as in `--dtype q4_0`, file names of shaders and report rows.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q8_0 => "q8_0",
            DType::Q4_K => "q4_k",
            DType::Q5_K => "q5_k",
            DType::Q6_K => "q6_k",
            DType::U32 => "u32",
        }
    }

    /// Bytes that `elements` take in a file.
    ///
    /// # Errors
    /// `Shape` where `elements` is no whole number of blocks or the size overflows.
    pub fn bytes(self, elements: u64) -> Result<u64> {
        let block = self.block_len() as u64;
        if !elements.is_multiple_of(block) {
            return Err(Error::shape(format!("{elements} elements of {self}: expected a multiple of {block}")));
        }
        (elements / block)
            .checked_mul(self.block_bytes() as u64)
            .ok_or_else(|| Error::shape(format!("{elements} elements of {self} take more than 2^64 bytes")))
    }

    /// The format of GGML's type number in a GGUF file.
    ///
    /// # Errors
    /// `Unsupported`, by name where the number is one of GGML's.
    pub fn from_ggml(id: u32) -> Result<Self> {
        Ok(match id {
            0 => DType::F32,
            1 => DType::F16,
            2 => DType::Q4_0,
            3 => DType::Q4_1,
            6 => DType::Q5_0,
            7 => DType::Q5_1,
            8 => DType::Q8_0,
            12 => DType::Q4_K,
            13 => DType::Q5_K,
            14 => DType::Q6_K,
            30 => DType::BF16,
            _ => {
                let name = match id {
                    9 => "Q8_1",
                    10 => "Q2_K",
                    11 => "Q3_K",
                    15 => "Q8_K",
                    16 => "IQ2_XXS",
                    17 => "IQ2_XS",
                    18 => "IQ3_XXS",
                    19 => "IQ1_S",
                    20 => "IQ4_NL",
                    21 => "IQ3_S",
                    22 => "IQ2_S",
                    23 => "IQ4_XS",
                    24 => "I8",
                    25 => "I16",
                    26 => "I32",
                    27 => "I64",
                    28 => "F64",
                    29 => "IQ1_M",
                    34 => "TQ1_0",
                    35 => "TQ2_0",
                    39 => "MXFP4",
                    _ => "unknown",
                };
                return Err(Error::unsupported(format!("tensor type {id} ({name}): expected one of {}", names())));
            }
        })
    }

    /// GGML's type number.
    ///
    /// # Panics
    /// For `U32`, which no file holds.
    pub const fn ggml_id(self) -> u32 {
        match self {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q5_0 => 6,
            DType::Q5_1 => 7,
            DType::Q8_0 => 8,
            DType::Q4_K => 12,
            DType::Q5_K => 13,
            DType::Q6_K => 14,
            DType::BF16 => 30,
            DType::U32 => panic!("u32 is not a weight format"),
        }
    }
}

fn names() -> String {
    DType::WEIGHTS.map(DType::name).join(", ")
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        DType::WEIGHTS
            .into_iter()
            .find(|dtype| dtype.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| Error::unsupported(format!("tensor type {name:?}: expected one of {}", names())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_come_back() {
        for dtype in DType::WEIGHTS {
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(DType::from_ggml(dtype.ggml_id()), Ok(dtype));
        }
        assert!(DType::from_ggml(10).is_err_and(|e| e.to_string().contains("Q2_K")));
    }

    #[test]
    fn bytes_are_whole_blocks() {
        assert_eq!(DType::Q4_0.bytes(64), Ok(36));
        assert!(DType::Q4_K.bytes(64).is_err());
        assert!(DType::F32.bytes(u64::MAX).is_err());
    }
}
