//! `y[q, g] = max over n in 32 g .. 32 g + 32 of the key of scores[q, n]`: what [`MatmulBest`](super::matmul::MatmulBest) finds,
//! of scores that a product without cooperative matrices wrote.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, read, write};
use super::ranking::{GROUP, WORKGROUP, best_of_groups, check_groups};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

/// The best score of every group of rows.
#[derive(Clone, Debug)]
pub struct GroupBest {
    /// `scores[Q, N]` of consecutive rows.
    pub scores: Tensor,
    /// `removed[(skip + N) / 32]`, rounded up: a bit a row; those set are no candidates.
    pub removed: Tensor,
    /// Rows of `removed` before the first one, a multiple of 32.
    pub skip: usize,
    /// `y[Q, groups]`: keys, see [`super::ranking`].
    pub y: Tensor,
    /// The first group of `y` that is written; one for each [`GROUP`] rows is.
    pub first_group: usize,
}

params! {
    struct Uniform { count: u32, skip: u32, groups: u32, first_group: u32 }
}

impl Kernel for GroupBest {
    fn name(&self) -> &'static str {
        "group_best"
    }

    fn check(&self) -> Result<()> {
        let kernel = self.name();
        expect(kernel, self.scores.shape().len() == 2 && !self.scores.is_empty(), || {
            format!("scores has shape {:?}, expected [queries, rows], one or more", self.scores.shape())
        })?;
        expect(kernel, self.skip.is_multiple_of(GROUP), || {
            format!("{} rows before the first, expected a multiple of {GROUP}", self.skip)
        })?;
        let [queries, rows] = [self.scores.rows(), self.scores.cols()];
        check_groups(kernel, rows, &self.removed, self.skip, &self.y, queries, self.first_group)
    }

    fn spec(&self, profile: &Profile) -> Spec {
        Spec::new("group_best", Target::of(profile)).constant("WORKGROUP", WORKGROUP).trusted()
    }

    fn params(&self) -> Params {
        Uniform {
            count: self.scores.cols() as u32,
            skip: self.skip as u32,
            groups: self.y.cols() as u32,
            first_group: self.first_group as u32,
        }
        .into()
    }

    fn grid(&self, _profile: &Profile, _context: usize) -> [u32; 3] {
        let groups = self.scores.cols().div_ceil(GROUP);
        [groups.div_ceil(WORKGROUP as usize) as u32, self.scores.rows() as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.scores), read(&self.removed), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let scores = host.floats(&self.scores)?;
        best_of_groups(host, &scores, self.scores.cols(), &self.removed, self.skip, &self.y, self.first_group)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (queries, count, skip) in [(3, 9_000, 64), (1, 20, 0)] {
        let mut builder = CaseBuilder::new((count + skip) as u64);
        let mut scores: Vec<f32> = (0..queries * count).map(|_| builder.normal()).collect();
        // NaN is never chosen, minus infinity is.
        scores[count / 2] = f32::NAN;
        scores[..9].fill(f32::NEG_INFINITY);
        let mut removed: Vec<u32> = (0..(skip + count).div_ceil(32)).map(|_| builder.bits() & builder.bits()).collect();
        removed[skip / 32] = !0b1_0000_0001;
        let total = count.div_ceil(GROUP) + 2;
        let kernel = GroupBest {
            scores: builder.floats(&[queries, count], &scores),
            removed: builder.words(&[removed.len()], &removed),
            skip,
            y: builder.words(&[queries, total], &vec![3; queries * total]),
            first_group: 1,
        };
        builder.updated(&kernel.y, Compare::Exact);
        cases.push(builder.case(format!("{queries} of {count} from {skip}"), kernel));
    }
    cases
}
