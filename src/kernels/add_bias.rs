//! `y[m, offset + n] += bias[n]`.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, read, write};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

const WORKGROUP: u32 = 64;

/// Adds a vector to some columns of each row.
#[derive(Clone, Debug)]
pub struct AddBias {
    /// `bias[N]`.
    pub bias: Tensor,
    /// `y[M, stride]`.
    pub y: Tensor,
    /// The column that the first element is added to.
    pub y_offset: usize,
}

params! {
    struct Uniform { rows: u32, cols: u32, y_stride: u32, y_offset: u32 }
}

impl Kernel for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn check(&self) -> Result<()> {
        expect("add_bias", !self.bias.is_empty() && self.y_offset + self.bias.len() <= self.y.cols(), || {
            format!("{} values from column {}, expected at most {}", self.bias.len(), self.y_offset, self.y.cols())
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        Spec::new("add_bias", Target::of(profile)).constant("WORKGROUP", WORKGROUP).trusted()
    }

    fn params(&self) -> Params {
        Uniform {
            rows: self.y.rows() as u32,
            cols: self.bias.len() as u32,
            y_stride: self.y.cols() as u32,
            y_offset: self.y_offset as u32,
        }
        .into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid((self.y.rows() * self.bias.len()).div_ceil(WORKGROUP as usize), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.bias), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (bias, mut y) = (host.floats(&self.bias)?, host.floats(&self.y)?);
        for row in y.chunks_exact_mut(self.y.cols()) {
            for (value, bias) in row[self.y_offset..].iter_mut().zip(&bias) {
                *value += bias;
            }
        }
        host.set(&self.y, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, cols, stride, y_offset) in [(1, 1, 1, 0), (3, 40, 50, 7), (7, 96, 96, 0)] {
        let mut builder = CaseBuilder::new(stride as u64);
        let bias = builder.random(&[cols]);
        let y = builder.random(&[rows, stride]);
        // One rounded sum.
        builder.updated(&y, Compare::Nmse(1e-14));
        cases.push(builder.case(format!("{rows}x{cols} of {stride}"), AddBias { bias, y, y_offset }));
    }
    cases
}
