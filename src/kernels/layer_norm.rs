//! `x[m] = (x[m] + add[p] - mean) / sqrt(variance + eps) · weight + bias`, in place (Ba, Kiros and Hinton 2016), where `p` is
//! the row's position, or 0 for all rows: a bias, or the embeddings of positions, goes in without a dispatch of its own.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, linear_grid, read, write};
use super::packed::{self, PackedRow};
use super::q8::Activations;
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// Layer normalisation of each row, after adding a row of a table.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `add[P, K]`: the row at a row's position is added to it; with P = 1 the same to all.
    pub add: Tensor,
    /// `rows[M, 4]`: see [`packed`]. Positions are below P.
    pub rows: Tensor,
    /// `weight[K]`.
    pub weight: Tensor,
    /// `bias[K]`.
    pub bias: Tensor,
    /// `x[M, K]`, read and overwritten; K a multiple of 4.
    pub x: Tensor,
    /// `halves[M, K]`: the same in f16, for matrix products that round their input to it; K a multiple of 32.
    pub halves: Option<Tensor>,
    /// Added to the variance.
    pub eps: f32,
}

params! {
    struct Uniform { rows: u32, eps: f32 }
}

/// Four vectors an invocation: enough under way, and small workgroups have short barriers.
fn workgroup(cols: usize) -> u32 {
    (cols as u32).div_ceil(16).next_power_of_two().clamp(32, 256)
}

impl Kernel for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn check(&self) -> Result<()> {
        let (rows, cols) = (self.x.rows(), self.x.cols());
        expect("layer_norm", cols.is_multiple_of(4) && cols > 0, || {
            format!("rows of {cols}, expected a multiple of 4")
        })?;
        expect_shape("layer_norm", "rows", self.rows.shape(), &[rows, 4])?;
        expect_shape("layer_norm", "weight", self.weight.shape(), &[cols])?;
        expect_shape("layer_norm", "bias", self.bias.shape(), &[cols])?;
        expect_shape("layer_norm", "add", self.add.shape(), &[self.add.rows(), cols])?;
        if let Some(halves) = &self.halves {
            Activations::F16(halves.clone()).check("layer_norm", "halves", rows, cols)?;
        }
        expect("layer_norm", self.eps >= 0.0, || format!("eps {}: expected a number from 0", self.eps))
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = Spec::new("layer_norm", Target::of(profile))
            .constant("K", self.x.cols() as u32)
            .constant("BY_POSITION", self.add.rows() > 1)
            .constant("WORKGROUP", workgroup(self.x.cols()))
            .slot("output", if self.halves.is_some() { "output/f16" } else { "output/none" })
            .trusted();
        if profile.features.subgroups { spec.flag(Flag::SUBGROUPS) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform { rows: self.x.rows() as u32, eps: self.eps }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.x.rows(), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings =
            vec![read(&self.add), read(&self.rows), read(&self.weight), read(&self.bias), write(&self.x)];
        bindings.extend(self.halves.as_ref().map(write));
        bindings
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (add, weight, bias) = (host.floats(&self.add)?, host.floats(&self.weight)?, host.floats(&self.bias)?);
        let rows: Vec<PackedRow> = packed::rows(&host.words(&self.rows)?);
        let mut x = host.floats(&self.x)?;
        let cols = self.x.cols();
        for (row, packed) in x.chunks_exact_mut(cols).zip(rows) {
            let from = if self.add.rows() > 1 { packed.position * cols } else { 0 };
            let values: Vec<f64> = row.iter().zip(&add[from..]).map(|(&v, &a)| f64::from(v) + f64::from(a)).collect();
            let mean = values.iter().sum::<f64>() / cols as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / cols as f64;
            let scale = 1.0 / (variance + f64::from(self.eps)).sqrt();
            for (i, out) in row.iter_mut().enumerate() {
                *out = ((values[i] - mean) * scale * f64::from(weight[i]) + f64::from(bias[i])) as f32;
            }
        }
        if let Some(halves) = &self.halves {
            Activations::F16(halves.clone()).set(host, &x)?;
        }
        host.set(&self.x, &x)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, cols, table, to_halves) in [
        (1, 8, 1, false),
        (5, 72, 9, false),
        (3, 384, 1, true),
        (7, 384, 16, false),
        (2, 1024, 4, true),
        (3, 4100, 1, false),
    ] {
        let mut builder = CaseBuilder::new(cols as u64);
        let words: Vec<u32> = (0..rows as u32).flat_map(|m| [9, (m * 5) % table as u32, 0, 0]).collect();
        let kernel = LayerNorm {
            add: builder.random(&[table, cols]),
            rows: builder.words(&[rows, 4], &words),
            weight: builder.random(&[cols]),
            bias: builder.random(&[cols]),
            x: builder.random(&[rows, cols]),
            // Rounded to 11 bits: off by 2^-12 / √3 of itself, squared 2e-8.
            halves: to_halves.then(|| builder.halves_output(&[rows, cols], Compare::HalfNmse(1e-7))),
            eps: 1e-12,
        };
        // Sums of up to 4100 terms in f32 and inverseSqrt to 2 ulp: relative errors near 1e-6, squared 1e-12.
        builder.updated(&kernel.x, Compare::Nmse(1e-11));
        let halves = if to_halves { " and f16" } else { "" };
        cases.push(builder.case(format!("{rows}x{cols} + {table}{halves}"), kernel));
    }
    cases
}
