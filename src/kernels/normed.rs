//! [`Normed`]: activations behind a norm whose division comes later. A product by a row is linear, so that `1 / rms` of the
//! whole row may multiply the results: the step that makes the row needs no second pass over it.

use super::host::Host;
use super::kernel::{Binding, expect, expect_shape, read};
use super::q8::Activations;
use crate::error::Result;
use crate::tensor::Tensor;

/// Sums of squares by which products are to be divided: `rms² = Σ squares / cols + eps`.
#[derive(Clone, Debug)]
pub struct Squares {
    /// `sums[M, P]`, each the sum of the squares of a part of the row.
    pub sums: Tensor,
    /// Added to the mean square.
    pub eps: f32,
}

impl Squares {
    /// Those of rows that lie in `values`, divided by its headroom; `eps` is of the norm.
    pub fn of(values: &Activations, sums: &Tensor, eps: f32) -> Self {
        let headroom = f32::from(values.headroom());
        Self { sums: sums.clone(), eps: eps / (headroom * headroom) }
    }
}

/// Activations, and what they are still to be divided by.
#[derive(Clone, Debug)]
pub struct Normed {
    /// `[M, K]`.
    pub values: Activations,
    /// `None` where nothing is left to do.
    pub squares: Option<Squares>,
}

impl From<Activations> for Normed {
    fn from(values: Activations) -> Self {
        Self { values, squares: None }
    }
}

impl Normed {
    /// P, 0 without squares.
    pub fn parts(&self) -> u32 {
        self.squares.as_ref().map_or(0, |squares| squares.sums.cols() as u32)
    }

    /// What is added to the mean square.
    pub fn eps(&self) -> f32 {
        self.squares.as_ref().map_or(0.0, |squares| squares.eps)
    }

    /// An error unless the squares are those of `rows` rows.
    ///
    /// # Errors
    /// `Shape`, naming the kernel.
    pub(super) fn check(&self, kernel: &str) -> Result<()> {
        let Some(squares) = &self.squares else { return Ok(()) };
        let (rows, _) = self.values.dims();
        expect_shape(kernel, "squares", squares.sums.shape(), &[rows, squares.sums.cols()])?;
        expect(kernel, squares.eps >= 0.0 && squares.sums.cols() > 0, || {
            format!(
                "squares: {} parts and eps {}, expected at least one and no less than 0",
                squares.sums.cols(),
                squares.eps
            )
        })
    }

    /// The bindings: the values, then the squares; `placeholder` in their place, which the shader does not read.
    pub(super) fn bindings(&self, placeholder: &Tensor) -> Vec<Binding> {
        let mut bindings = self.values.bindings(false);
        bindings.push(read(self.squares.as_ref().map_or(placeholder, |squares| &squares.sums)));
        bindings
    }

    /// What each row's products are multiplied by.
    pub(super) fn scales(&self, host: &Host) -> Result<Vec<f64>> {
        let (rows, cols) = self.values.dims();
        let Some(squares) = &self.squares else { return Ok(vec![1.0; rows]) };
        let sums = host.floats(&squares.sums)?;
        let scale = |sums: &[f32]| {
            let sum: f64 = sums.iter().map(|&v| f64::from(v)).sum();
            1.0 / (sum / cols as f64 + f64::from(squares.eps)).sqrt()
        };
        Ok(sums.chunks_exact(squares.sums.cols()).map(scale).collect())
    }
}
