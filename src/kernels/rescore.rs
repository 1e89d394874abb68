//! `key[q, i] = key of Σ_k x[q, k] · w[id[q, i], k]`: the scores of chosen rows anew in f32, where they were chosen by
//! products in f16.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read, write};
use super::ranking::key_of;
use super::scan::whole_numbers;
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

const WORKGROUP: u32 = 32;

/// Scores of chosen rows.
#[derive(Clone, Debug)]
pub struct Rescore {
    /// `w[N, K]`, K a multiple of 32; any weight format.
    pub w: Tensor,
    /// `x[Q, K]`.
    pub x: Tensor,
    /// `pairs[Q, count, 2]`: keys and ids; those whose row is not in `w` stay as they are.
    pub pairs: Tensor,
    /// The id of the first row.
    pub first_id: u32,
}

params! {
    struct Uniform { rows: u32, first_id: u32, count: u32 }
}

impl Rescore {
    fn count(&self) -> usize {
        self.pairs.shape().get(1).copied().unwrap_or(0)
    }
}

impl Kernel for Rescore {
    fn name(&self) -> &'static str {
        "rescore"
    }

    fn check(&self) -> Result<()> {
        let cols = self.w.cols();
        expect("rescore", self.w.rows() > 0 && cols > 0 && cols.is_multiple_of(32), || {
            format!("w has shape {:?}, expected rows of a multiple of 32", self.w.shape())
        })?;
        expect_shape("rescore", "x", self.x.shape(), &[self.x.rows(), cols])?;
        expect_shape("rescore", "pairs", self.pairs.shape(), &[self.x.rows(), self.count(), 2])
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = Spec::new("rescore", Target::of(profile))
            .constant("K", self.w.cols() as u32)
            .constant("ROW_VEC4", (layout::row_bytes(self.w.dtype(), self.w.cols()) / 16) as u32)
            .constant("WORKGROUP", WORKGROUP)
            .slot("weights", format!("weights/{}", self.w.dtype()))
            .trusted();
        if profile.features.subgroups { spec.flag(Flag::SUBGROUPS) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform { rows: self.w.rows() as u32, first_id: self.first_id, count: self.count() as u32 }.into()
    }

    fn grid(&self, _profile: &Profile, _context: usize) -> [u32; 3] {
        [self.count() as u32, self.x.rows() as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.w), read(&self.x), write(&self.pairs)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (w, x, mut pairs) = (host.floats(&self.w)?, host.floats(&self.x)?, host.words::<u32>(&self.pairs)?);
        let (rows, cols) = (self.w.rows(), self.w.cols());
        for (i, pair) in pairs.chunks_exact_mut(2).enumerate() {
            let row = pair[1].wrapping_sub(self.first_id) as usize;
            if row < rows {
                let x = &x[i / self.count() * cols..][..cols];
                let terms = w[row * cols..][..cols].iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                pair[0] = key_of(terms.sum::<f64>() as f32);
            }
        }
        host.set(&self.pairs, &pairs)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, queries, rows, cols, count) in
        [(DType::F16, 2, 50, 384, 9), (DType::Q8_0, 1, 20, 64, 30), (DType::F32, 3, 8, 1056, 4)]
    {
        let mut builder = CaseBuilder::new((rows + cols) as u64);
        let values = whole_numbers(&mut builder, rows, cols);
        let Ok(w) = builder.weight_of(dtype, cols, &values) else { continue };
        let x: Vec<f32> = (0..queries * cols).map(|_| (builder.bits() % 7) as f32 - 3.0).collect();
        let first_id = 100;
        // Some rows before, some behind, and places without one.
        let pair = |i: u32| [5, if i.is_multiple_of(5) { u32::MAX } else { first_id - 3 + i * 7 % (rows as u32 + 6) }];
        let pairs: Vec<u32> = (0..(queries * count) as u32).flat_map(pair).collect();
        let kernel = Rescore {
            w,
            x: builder.floats(&[queries, cols], &x),
            pairs: builder.words(&[queries, count, 2], &pairs),
            first_id,
        };
        builder.updated(&kernel.pairs, Compare::Exact);
        cases.push(builder.case(format!("{dtype} {queries}x{count} of {rows}x{cols}"), kernel));
    }
    cases
}
