//! [`Normed`]: activations behind a norm whose division comes later. A product by a row is linear, so that `1 / rms` of the
//! whole row may multiply the results: the step that makes the row needs no second pass over it.

use super::host::Host;
use super::kernel::{Binding, expect, expect_shape, read};
use super::q8::{Activations, BLOCK};
use crate::error::Result;
use crate::tensor::Tensor;

/// Sums of squares by which products are to be divided: `rms² = Σ squares / cols + eps`.
#[derive(Clone, Debug)]
pub struct Squares {
    /// `sums[M, P]`, each the sum of the squares of a part of the row; `None` where the values are quantised, which have
    /// that of each block within them.
    pub sums: Option<Tensor>,
    /// Added to the mean square.
    pub eps: f32,
}

impl Squares {
    /// Those of rows that lie in `values`, divided by its headroom; `eps` is of the norm.
    pub fn of(values: &Activations, sums: Option<&Tensor>, eps: f32) -> Self {
        let headroom = f32::from(values.headroom());
        Self { sums: sums.cloned(), eps: eps / (headroom * headroom) }
    }
}

/// An error unless there are sums beside `values` where there is no room within them, and only there.
///
/// # Errors
/// `Shape`, naming the kernel.
pub(super) fn check_sums(kernel: &str, values: &Activations, sums: Option<&Tensor>) -> Result<()> {
    expect(kernel, values.is_q8() != sums.is_some(), || match sums {
        Some(_) => "squares: found beside quantised values, expected within them".into(),
        None => "squares: found none, expected them beside values that are not quantised".into(),
    })
}

/// The sums of squares that lie within `values` or beside them.
pub(super) fn sums(host: &Host, values: &Activations, beside: Option<&Tensor>) -> Result<Vec<f32>> {
    match (values, beside) {
        (_, Some(sums)) => host.floats(sums),
        (Activations::Q8(q8), None) => q8.squares(host),
        _ => Ok(Vec::new()),
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
        let parts = |squares: &Squares| squares.sums.as_ref().map_or(self.values.dims().1 / BLOCK, Tensor::cols);
        self.squares.as_ref().map_or(0, parts) as u32
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
        check_sums(kernel, &self.values, squares.sums.as_ref())?;
        if let Some(sums) = &squares.sums {
            expect_shape(kernel, "squares", sums.shape(), &[rows, sums.cols()])?;
        }
        let (parts, eps) = (self.parts(), squares.eps);
        expect(kernel, eps >= 0.0 && parts > 0, || {
            format!("squares: {parts} parts and eps {eps}, expected at least one and no less than 0")
        })
    }

    /// The bindings: the values, then the squares where they are not within; `placeholder` in their place, which the shader
    /// does not read.
    pub(super) fn bindings(&self, placeholder: &Tensor) -> Vec<Binding> {
        let mut bindings = vec![self.values.binding(false)];
        if !self.values.is_q8() {
            let sums = self.squares.as_ref().and_then(|squares| squares.sums.as_ref());
            bindings.push(read(sums.unwrap_or(placeholder)));
        }
        bindings
    }

    /// What each row's products are multiplied by.
    pub(super) fn scales(&self, host: &Host) -> Result<Vec<f64>> {
        let (rows, cols) = self.values.dims();
        let Some(squares) = &self.squares else { return Ok(vec![1.0; rows]) };
        let sums = sums(host, &self.values, squares.sums.as_ref())?;
        let scale = |sums: &[f32]| {
            let sum: f64 = sums.iter().map(|&v| f64::from(v)).sum();
            1.0 / (sum / cols as f64 + f64::from(squares.eps)).sqrt()
        };
        Ok(sums.chunks_exact(self.parts() as usize).map(scale).collect())
    }
}
