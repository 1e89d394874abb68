//! Random weights made on the GPU, for timing a shape without its file. Quants are any bits; scales are such that values
//! have a deviation of about `1 / √cols`, so that activations keep their size.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, write};
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

const WORKGROUP: u32 = 256;

/// Fills a weight with random values.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// `w[N, K]`, of a format of [`SYNTHETIC_DTYPES`].
    pub w: Tensor,
    /// The same seed gives the same weight.
    pub seed: u32,
}

/// The formats that random weights are made in.
pub const SYNTHETIC_DTYPES: [DType; 5] = [DType::Q4_0, DType::Q4_K, DType::Q8_0, DType::F16, DType::F32];

params! {
    struct Uniform { rows: u32, row_words: u32, quant_words: u32, pairs_stride: u32, seed: u32, scale: f32 }
}

impl Synthetic {
    fn uniform(&self) -> Uniform {
        let cols = self.w.cols();
        let deviation = 1.0 / (cols as f32).sqrt();
        let row_words = layout::row_bytes(self.w.dtype(), cols) / 4;
        // (words of quants, words between pairs of scales, scale): a uniform number from -1 to 1 deviates by 0.58, a
        // nibble by 4.6 and a byte by 74; scales average 0.63.
        let (quant_words, pairs_stride, scale) = match self.w.dtype() {
            DType::Q4_0 => (cols / 8, 1, deviation / 2.9),
            DType::Q4_K => (cols / 8, 4, deviation / 110.0),
            DType::Q8_0 => (cols / 4, 1, deviation / 46.0),
            DType::F16 => (0, 1, deviation / 0.58),
            _ => (0, 0, deviation / 0.58),
        };
        Uniform {
            rows: self.w.rows() as u32,
            row_words: row_words as u32,
            quant_words: quant_words as u32,
            pairs_stride,
            seed: self.seed.wrapping_mul(0x9e37_79b9),
            scale,
        }
    }
}

fn hash(value: u32) -> u32 {
    let mut v = (value ^ 61) ^ (value >> 16);
    v = v.wrapping_mul(9);
    v ^= v >> 4;
    v = v.wrapping_mul(0x27d4_eb2d);
    v ^ (v >> 15)
}

impl Kernel for Synthetic {
    fn name(&self) -> &'static str {
        "synthetic"
    }

    fn check(&self) -> Result<()> {
        expect("synthetic", SYNTHETIC_DTYPES.contains(&self.w.dtype()), || {
            format!("random weights of {}: expected one of {SYNTHETIC_DTYPES:?}", self.w.dtype())
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        Spec::new("synthetic", Target::of(profile))
            .constant("WORKGROUP", WORKGROUP.min(profile.limits.max_workgroup_invocations))
            .constant("SIGNED", self.w.dtype() == DType::F16)
            .trusted()
    }

    fn params(&self) -> Params {
        self.uniform().into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        // Invocations stride over the rest.
        linear_grid((self.w.bytes() as usize / 4).div_ceil(WORKGROUP as usize).min(32_768), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![write(&self.w)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let u = self.uniform();
        let signed = self.w.dtype() == DType::F16;
        let words: Vec<u32> = (0..u.rows * u.row_words)
            .map(|i| {
                let (bits, word) = (hash(i ^ u.seed), i % u.row_words);
                let (low, high) = ((bits & 0xffff) as f32 / 65535.0, (bits >> 16) as f32 / 65535.0);
                let half = |v: f32| u32::from(half::f16::from_f32(v * u.scale).to_bits());
                if word < u.quant_words {
                    bits
                } else if u.pairs_stride == 0 {
                    ((2.0 * low - 1.0) * u.scale).to_bits()
                } else if !(word - u.quant_words).is_multiple_of(u.pairs_stride) {
                    bits
                } else if signed {
                    half(2.0 * low - 1.0) | half(2.0 * high - 1.0) << 16
                } else {
                    half(0.25 + 0.75 * low) | half(0.25 + 0.75 * high) << 16
                }
            })
            .collect();
        host.bytes_mut(&self.w)?.copy_from_slice(bytemuck::cast_slice(&words));
        Ok(())
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in SYNTHETIC_DTYPES {
        let mut builder = CaseBuilder::new(1);
        // Roundings to f16 may fall on the other side where a quotient is an ulp off; quants are the same bits.
        let compare = match dtype {
            DType::F32 => Compare::Nmse(1e-13),
            DType::F16 => Compare::HalfNmse(1e-6),
            _ => Compare::Bytes(1),
        };
        let w = builder.poisoned_weight(dtype, 5, 512, compare);
        cases.push(builder.case(format!("{dtype} 5x512"), Synthetic { w, seed: 3 }));
    }
    cases
}
