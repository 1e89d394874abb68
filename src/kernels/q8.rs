//! Activations as signed bytes for integer dot products: the Rust twin of `shaders/lib/q8.wgsl`, and the pair of tensors
//! that holds them.

use super::host::Host;
use super::kernel::{Binding, expect_shape, read, write};
use crate::error::Result;
use crate::tensor::Tensor;

/// Elements that share a scale.
pub const BLOCK: usize = 32;

/// Quantised activations of M rows of K elements, K a multiple of 32.
#[derive(Clone, Debug)]
pub struct Q8 {
    /// `q[M, K / 4]`: four signed bytes a word.
    pub q: Tensor,
    /// `s[M, K / 32, 2]`: scale, and scale times the sum of the bytes.
    pub s: Tensor,
}

/// Activations as a matrix product takes them.
#[derive(Clone, Debug)]
pub enum Activations {
    /// `x[M, K]` in f32.
    F32(Tensor),
    /// `x[M, K]` in f16, K a multiple of 32: what matrix products round their input to in any case.
    F16(Tensor),
    /// Quantised to bytes, for integer dot products.
    Q8(Q8),
}

impl Activations {
    /// The bindings, in the order q, s.
    pub fn bindings(&self, as_output: bool) -> Vec<Binding> {
        let bind = if as_output { write } else { read };
        match self {
            Activations::F32(x) | Activations::F16(x) => vec![bind(x)],
            Activations::Q8(Q8 { q, s }) => vec![bind(q), bind(s)],
        }
    }

    /// Whether they are quantised.
    pub fn is_q8(&self) -> bool {
        matches!(self, Activations::Q8(_))
    }

    /// The file that writes blocks of them, for a shader's slot.
    pub(super) fn output(&self) -> &'static str {
        match self {
            Activations::F32(_) => "output/f32",
            Activations::F16(_) => "output/f16",
            Activations::Q8(_) => "output/q8",
        }
    }

    /// Rows and elements of a row.
    pub fn dims(&self) -> (usize, usize) {
        match self {
            Activations::F32(x) | Activations::F16(x) => (x.rows(), x.cols()),
            Activations::Q8(Q8 { q, .. }) => (q.rows(), 4 * q.cols()),
        }
    }

    /// An error unless they hold `rows` rows of `cols`.
    ///
    /// # Errors
    /// `Shape`, naming kernel and argument.
    pub fn check(&self, kernel: &str, argument: &str, rows: usize, cols: usize) -> Result<()> {
        match self {
            Activations::F32(x) => expect_shape(kernel, argument, x.shape(), &[rows, cols]),
            Activations::F16(x) => {
                super::kernel::expect(kernel, cols.is_multiple_of(BLOCK), || {
                    format!("{argument}: {cols} columns, expected a multiple of {BLOCK} for halves")
                })?;
                expect_shape(kernel, argument, x.shape(), &[rows, cols])
            }
            Activations::Q8(Q8 { q, s }) => {
                super::kernel::expect(kernel, cols.is_multiple_of(BLOCK), || {
                    format!("{argument}: {cols} columns, expected a multiple of {BLOCK} for quantised activations")
                })?;
                expect_shape(kernel, argument, q.shape(), &[rows, cols / 4])?;
                expect_shape(kernel, argument, s.shape(), &[rows, cols / BLOCK, 2])
            }
        }
    }

    /// The values on the host: `[M, K]`, dequantised.
    ///
    /// # Errors
    /// `Shape` where the host lacks a tensor.
    pub fn values(&self, host: &Host) -> Result<Vec<f32>> {
        match self {
            Activations::F32(x) | Activations::F16(x) => host.floats(x),
            Activations::Q8(Q8 { q, s }) => {
                let (q, s) = (host.bytes(q)?, host.words::<f32>(s)?);
                Ok(q.iter().enumerate().map(|(i, &q)| f32::from(q as i8) * s[i / BLOCK * 2]).collect())
            }
        }
    }

    /// Writes values `[M, K]` on the host, quantised where these are.
    ///
    /// # Errors
    /// `Shape` where the host lacks a tensor.
    pub fn set(&self, host: &mut Host, values: &[f32]) -> Result<()> {
        match self {
            Activations::F32(x) => host.set(x, values),
            Activations::F16(x) => {
                let halves: Vec<half::f16> =
                    values.iter().map(|v| half::f16::from_f32(v.clamp(-65504.0, 65504.0))).collect();
                host.set(x, &halves)
            }
            Activations::Q8(Q8 { q, s }) => {
                let (bytes, scales) = pack(values);
                host.set(q, &bytes)?;
                host.set(s, &scales)
            }
        }
    }
}

/// Bytes, and scale and scaled sum of each 32.
pub fn pack(values: &[f32]) -> (Vec<i8>, Vec<f32>) {
    let mut bytes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / BLOCK * 2);
    for block in values.chunks_exact(BLOCK) {
        let scale = block.iter().fold(0f32, |largest, v| largest.max(v.abs())) / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let start = bytes.len();
        bytes.extend(block.iter().map(|v| (v * inverse).round_ties_even() as i8));
        let sum: i32 = bytes[start..].iter().map(|&q| i32::from(q)).sum();
        scales.extend([scale, scale * sum as f32]);
    }
    (bytes, scales)
}
