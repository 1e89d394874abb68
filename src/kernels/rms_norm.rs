//! `y[m, k] = x[m, k] / sqrt(mean_k(x²) + eps) · weight[k]` (Zhang and Sennrich 2019).

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, linear_grid, read};
use super::q8::{Activations, Q8, Tiles};
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// Root mean square normalisation of each row.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `x[M, K]`.
    pub x: Tensor,
    /// `weight[K]`.
    pub weight: Tensor,
    /// `y[M, K]`.
    pub y: Activations,
    /// Added to the mean square.
    pub eps: f32,
}

params! {
    struct Uniform { rows: u32, eps: f32 }
}

/// Invocations of a workgroup that serves one row.
pub(super) fn row_workgroup(profile: &Profile) -> u32 {
    profile.limits.max_workgroup_invocations.min(256)
}

impl Kernel for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn check(&self) -> Result<()> {
        let (rows, cols) = (self.x.rows(), self.x.cols());
        expect_shape("rms_norm", "weight", self.weight.shape(), &[cols])?;
        expect("rms_norm", cols.is_multiple_of(4), || format!("x has {cols} columns, expected a multiple of 4"))?;
        expect("rms_norm", self.eps >= 0.0, || format!("eps {}: expected a number from 0", self.eps))?;
        self.y.check("rms_norm", "y", rows, cols)
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = Spec::new("rms_norm", Target::of(profile))
            .constant("K", self.x.cols() as u32)
            .constant("WORKGROUP", row_workgroup(profile))
            .trusted();
        let spec = self.y.output(spec);
        let spec = if profile.features.subgroups { spec.flag(Flag::SUBGROUPS) } else { spec };
        if self.y.is_q8() { spec.flag(Flag::DOT4) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform { rows: self.x.rows() as u32, eps: self.eps }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.x.rows(), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.x), read(&self.weight), self.y.binding(true)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (x, weight) = (host.floats(&self.x)?, host.floats(&self.weight)?);
        let cols = self.x.cols();
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(cols) {
            let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / cols as f64;
            let scale = 1.0 / (mean + f64::from(self.eps)).sqrt();
            y.extend(row.iter().zip(&weight).map(|(&v, &w)| (f64::from(v) * scale * f64::from(w)) as f32));
        }
        self.y.set(host, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, cols) in [(1, 8), (3, 72), (2, 256), (5, 1000), (1, 4096)] {
        let mut builder = CaseBuilder::new(cols as u64);
        let x = builder.random(&[rows, cols]);
        let weight = builder.random(&[cols]);
        // Sums of up to 4096 squares in f32, and inverseSqrt to 2 ulp: relative errors near 1e-6, squared 1e-12.
        let y = Activations::F32(builder.output(&[rows, cols], Compare::Nmse(1e-11)));
        cases.push(builder.case(format!("{rows}x{cols}"), RmsNorm { x, weight, y, eps: 1e-5 }));
    }
    for (rows, cols) in [(2, 64), (1, 4096)] {
        let mut builder = CaseBuilder::new(cols as u64 + 1);
        let x = builder.random(&[rows, cols]);
        let weight = builder.random(&[cols]);
        let y = q8_output(&mut builder, rows, cols, 1e-11);
        cases.push(builder.case(format!("{rows}x{cols} q8"), RmsNorm { x, weight, y, eps: 1e-5 }));
        let mut builder = CaseBuilder::new(cols as u64 + 2);
        let (x, weight) = (builder.random(&[rows, cols]), builder.random(&[cols]));
        let y = f16_output(&mut builder, rows, cols);
        cases.push(builder.case(format!("{rows}x{cols} f16"), RmsNorm { x, weight, y, eps: 1e-5 }));
        let mut builder = CaseBuilder::new(cols as u64 + 3);
        let (x, weight) = (builder.random(&[rows, cols]), builder.random(&[cols]));
        let y = tiles_output(&mut builder, rows, cols, Compare::HalfEach(1.0 / 1024.0));
        cases.push(builder.case(format!("{rows}x{cols} tiles"), RmsNorm { x, weight, y, eps: 1e-5 }));
    }
    cases
}

/// Halves as an output: WGSL leaves the direction of rounding open, an ulp of 2^-10.
pub(super) fn f16_output(builder: &mut CaseBuilder, rows: usize, cols: usize) -> Activations {
    Activations::F16(builder.halves_output(&[rows, cols], Compare::HalfEach(1.0 / 1024.0)))
}

/// Halves in tiles. Rows that do not count are whatever they were: the harness compares them too, with what it put there.
pub(super) fn tiles_output(builder: &mut CaseBuilder, rows: usize, cols: usize, compare: Compare) -> Activations {
    let shape = Tiles::shape(rows, cols);
    let values = builder.normals(shape.iter().product());
    let x = builder.halves(&shape, &values);
    builder.updated(&x, compare);
    Activations::Tiles(Tiles { x, rows })
}

/// Quantised activations as an output, of values whose error is `nmse`.
pub(super) fn q8_output(builder: &mut CaseBuilder, rows: usize, cols: usize, nmse: f64) -> Activations {
    Activations::Q8(Q8 { x: builder.output_of(DType::U32, &Q8::shape(rows, cols), Compare::Q8(nmse)) })
}
