//! `key[q, i, r] = key of Σ_k x[q, k] · w[32 · group[q, i] + r, k]`: the rows of chosen groups with their scores in f32, where groups
//! were chosen by products in f16.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read, write};
use super::ranking::{GROUP, NONE, is_removed, key_of};
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

/// Scores of the rows of chosen groups.
#[derive(Clone, Debug)]
pub struct Rescore {
    /// `w[N, K]`, K a multiple of 32; any weight format.
    pub w: Tensor,
    /// `x[Q, K]`.
    pub x: Tensor,
    /// `removed[N / 32]`, rounded up: a bit a row; those set are no candidates.
    pub removed: Tensor,
    /// `chosen[Q, count, 2]`: keys and groups.
    pub chosen: Tensor,
    /// `y[Q, 32 · count, 2]`: keys and rows; those of groups that are not in `w` stay as they are.
    pub y: Tensor,
    /// The group that `w` begins with.
    pub first_group: u32,
}

params! {
    struct Uniform { rows: u32, first_group: u32, count: u32 }
}

impl Rescore {
    fn count(&self) -> usize {
        self.chosen.shape().get(1).copied().unwrap_or(0)
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
        expect("rescore", self.removed.len() >= self.w.rows().div_ceil(32), || {
            format!("removed has {} words, expected {}", self.removed.len(), self.w.rows().div_ceil(32))
        })?;
        expect_shape("rescore", "chosen", self.chosen.shape(), &[self.x.rows(), self.count(), 2])?;
        expect_shape("rescore", "y", self.y.shape(), &[self.x.rows(), GROUP * self.count(), 2])
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
        Uniform { rows: self.w.rows() as u32, first_group: self.first_group, count: self.count() as u32 }.into()
    }

    fn grid(&self, _profile: &Profile, _context: usize) -> [u32; 3] {
        [(GROUP * self.count()) as u32, self.x.rows() as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.w), read(&self.x), read(&self.removed), read(&self.chosen), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (w, x, removed) = (host.floats(&self.w)?, host.floats(&self.x)?, host.words::<u32>(&self.removed)?);
        let (chosen, mut y) = (host.words::<u32>(&self.chosen)?, host.words::<u32>(&self.y)?);
        let (rows, cols) = (self.w.rows(), self.w.cols());
        for (i, (chosen, y)) in chosen.chunks_exact(2).zip(y.chunks_exact_mut(2 * GROUP)).enumerate() {
            let group = chosen[1].wrapping_sub(self.first_group) as usize;
            if chosen[0] != 0 && group >= rows.div_ceil(GROUP) {
                continue;
            }
            for (r, y) in y.chunks_exact_mut(2).enumerate() {
                let row = group.saturating_mul(GROUP).saturating_add(r);
                let (key, id) = if chosen[0] == 0 || row >= rows || is_removed(&removed, row) {
                    NONE
                } else {
                    let x = &x[i / self.count() * cols..][..cols];
                    let terms = w[row * cols..][..cols].iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                    (key_of(terms.sum::<f64>() as f32), self.first_group * GROUP as u32 + row as u32)
                };
                y.copy_from_slice(&[key, id]);
            }
        }
        host.set(&self.y, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, queries, rows, cols, count) in
        [(DType::F16, 2, 150, 384, 9), (DType::Q8_0, 1, 20, 64, 30), (DType::F32, 3, 64, 1056, 4)]
    {
        let mut builder = CaseBuilder::new((rows + cols) as u64);
        let values = whole_numbers(&mut builder, rows, cols);
        let Ok(w) = builder.weight_of(dtype, cols, &values) else { continue };
        let x: Vec<f32> = (0..queries * cols).map(|_| (builder.bits() % 7) as f32 - 3.0).collect();
        let removed: Vec<u32> = (0..rows.div_ceil(32)).map(|_| builder.bits() & builder.bits()).collect();
        let first_group = 100;
        let groups = rows.div_ceil(GROUP) as u32;
        // Some groups before, some behind, and places without one.
        let pair = |i: u32| if i % 5 == 2 { [0, u32::MAX] } else { [5, first_group - 1 + i % (groups + 2)] };
        let chosen: Vec<u32> = (0..(queries * count) as u32).flat_map(pair).collect();
        let kernel = Rescore {
            w,
            x: builder.floats(&[queries, cols], &x),
            removed: builder.words(&[removed.len()], &removed),
            chosen: builder.words(&[queries, count, 2], &chosen),
            y: builder.words(&[queries, GROUP * count, 2], &vec![9; queries * GROUP * count * 2]),
            first_group,
        };
        builder.updated(&kernel.y, Compare::Exact);
        cases.push(builder.case(format!("{dtype} {queries}x{count} of {rows}x{cols}"), kernel));
    }
    cases
}
