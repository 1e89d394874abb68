//! `y[t] = mean(x[rows of t])`, or the first or the last of them; then `y[t] / |y[t]|` where asked for.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, linear_grid, read, write};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// Which rows of a text count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All: their mean.
    Mean,
    /// The first.
    First,
    /// The last.
    Last,
}

/// One vector a text.
#[derive(Clone, Debug)]
pub struct Pool {
    /// `x[M, K]`.
    pub x: Tensor,
    /// `texts[S, 2]`: the first row and the number of rows; texts without rows keep what `y` holds.
    pub texts: Tensor,
    /// `y[S, K]`.
    pub y: Tensor,
    /// Which rows count.
    pub rows: Rows,
    /// Whether vectors are divided by their length.
    pub normalize: bool,
}

params! {
    struct Uniform { texts: u32 }
}

impl Kernel for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn check(&self) -> Result<()> {
        let cols = self.x.cols();
        expect_shape("pool", "texts", self.texts.shape(), &[self.y.rows(), 2])?;
        expect("pool", cols > 0 && self.y.cols() == cols, || {
            format!("y has rows of {}, expected those of x, {cols}", self.y.cols())
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = Spec::new("pool", Target::of(profile))
            .constant("K", self.x.cols() as u32)
            .constant("POOLING", self.rows as u32)
            .constant("NORMALIZE", self.normalize)
            .constant("WORKGROUP", (self.x.cols() as u32).div_ceil(4).next_power_of_two().clamp(32, 256))
            .trusted();
        if profile.features.subgroups { spec.flag(Flag::SUBGROUPS) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform { texts: self.y.rows() as u32 }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.y.rows(), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.x), read(&self.texts), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (x, texts, mut y) = (host.floats(&self.x)?, host.words::<u32>(&self.texts)?, host.floats(&self.y)?);
        let cols = self.x.cols();
        for (text, out) in texts.chunks_exact(2).zip(y.chunks_exact_mut(cols)) {
            let (start, count) = (text[0] as usize, text[1] as usize);
            if count == 0 {
                continue;
            }
            let counted = match self.rows {
                Rows::Mean => start..start + count,
                Rows::First => start..start + 1,
                Rows::Last => start + count - 1..start + count,
            };
            let mut mean = vec![0.0; cols];
            for row in counted.clone() {
                mean.iter_mut().zip(&x[row * cols..]).for_each(|(sum, &v)| *sum += f64::from(v) / counted.len() as f64);
            }
            let length = mean.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
            let scale = if self.normalize { 1.0 / length } else { 1.0 };
            out.iter_mut().zip(&mean).for_each(|(out, v)| *out = (v * scale) as f32);
        }
        host.set(&self.y, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (cols, rows, normalize) in [
        (384, Rows::Mean, true),
        (40, Rows::Mean, false),
        (1100, Rows::First, true),
        (72, Rows::Last, true),
        (8, Rows::Last, false),
    ] {
        let mut builder = CaseBuilder::new(cols as u64);
        let x = builder.random(&[23, cols]);
        // Texts of several lengths, out of order, and one place without a text.
        let texts = builder.words(&[5, 2], &[3, 4, 0, 3, 9, 0, 7, 15, 22, 1]);
        let y = builder.random(&[5, cols]);
        // Sums of up to 1100 terms in f32: relative errors near 1e-6, squared 1e-12.
        builder.updated(&y, Compare::Nmse(1e-11));
        let name = format!("{cols} {rows:?}{}", if normalize { ", normalised" } else { "" });
        cases.push(builder.case(name, Pool { x, texts, y, rows, normalize }));
    }
    cases
}
