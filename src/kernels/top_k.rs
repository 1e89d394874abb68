//! The best of many candidates: of scores that a matrix product wrote, or of what earlier dispatches chose. One dispatch
//! leaves `top` of every few thousand; repeated, it leaves the best of all.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read, write};
use super::ranking::{WORKGROUP, best, check_top, held, is_removed, key_of, selecting};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

/// Where candidates come from.
#[derive(Clone, Debug)]
pub enum Candidates {
    /// `pairs[Q, N, 2]`: keys and ids.
    Pairs(Tensor),
    /// Scores of consecutive rows.
    Scores {
        /// `scores[Q, N]`.
        scores: Tensor,
        /// `removed[(skip + N) / 32]`, rounded up: a bit a row; those set are no candidates.
        removed: Tensor,
        /// Rows of `removed` before the first one.
        skip: usize,
        /// The id of the first row.
        first_id: u32,
    },
}

/// The best of each group of candidates.
#[derive(Clone, Debug)]
pub struct TopK {
    /// The candidates.
    pub candidates: Candidates,
    /// `y[Q, groups, top, 2]`: key and id, see [`super::ranking`].
    pub y: Tensor,
    /// The first group of `y` that is written; [`groups`] are.
    pub first_group: usize,
}

params! {
    struct Uniform { count: u32, groups: u32, first_group: u32, first_id: u32, skip: u32 }
}

const MOST_HELD: usize = 16;

/// Groups that `count` candidates make.
pub fn groups(count: usize, top: usize) -> usize {
    count.div_ceil(WORKGROUP as usize * held(top, MOST_HELD))
}

impl TopK {
    fn top(&self) -> usize {
        self.y.shape().get(2).copied().unwrap_or(0)
    }

    fn total_groups(&self) -> usize {
        self.y.shape().get(1).copied().unwrap_or(0)
    }

    /// Q and N.
    fn dims(&self) -> [usize; 2] {
        let shape = match &self.candidates {
            Candidates::Pairs(pairs) => pairs.shape(),
            Candidates::Scores { scores, .. } => scores.shape(),
        };
        [shape.first().copied().unwrap_or(0), shape.get(1).copied().unwrap_or(0)]
    }
}

impl Kernel for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn check(&self) -> Result<()> {
        let ([queries, count], top) = (self.dims(), self.top());
        check_top("top_k", top)?;
        match &self.candidates {
            Candidates::Pairs(pairs) => expect_shape("top_k", "pairs", pairs.shape(), &[queries, count, 2])?,
            Candidates::Scores { scores, removed, skip, .. } => {
                expect_shape("top_k", "scores", scores.shape(), &[queries, count])?;
                let expected = (skip + count).div_ceil(32);
                expect("top_k", removed.len() >= expected, || {
                    format!("removed has {} words, expected {expected}", removed.len())
                })?;
            }
        }
        let total = self.total_groups();
        expect_shape("top_k", "y", self.y.shape(), &[queries, total, top, 2])?;
        let groups = groups(count, top);
        expect("top_k", count > 0 && self.first_group + groups <= total, || {
            format!("{groups} groups from {}, expected them within {total}", self.first_group)
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let (top, held) = (self.top(), held(self.top(), MOST_HELD));
        let candidates = match &self.candidates {
            Candidates::Pairs(_) => "top_k/pairs",
            Candidates::Scores { .. } => "top_k/scores",
        };
        selecting(Spec::new("top_k", Target::of(profile)), profile, top, held).slot("candidates", candidates).trusted()
    }

    fn params(&self) -> Params {
        let (first_id, skip) = match &self.candidates {
            Candidates::Pairs(_) => (0, 0),
            Candidates::Scores { skip, first_id, .. } => (*first_id, *skip as u32),
        };
        Uniform {
            count: self.dims()[1] as u32,
            groups: self.total_groups() as u32,
            first_group: self.first_group as u32,
            first_id,
            skip,
        }
        .into()
    }

    fn grid(&self, _profile: &Profile, _context: usize) -> [u32; 3] {
        let [queries, count] = self.dims();
        [groups(count, self.top()) as u32, queries as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        match &self.candidates {
            Candidates::Pairs(pairs) => vec![read(pairs), write(&self.y)],
            Candidates::Scores { scores, removed, .. } => vec![read(scores), read(removed), write(&self.y)],
        }
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let ([queries, count], top) = (self.dims(), self.top());
        let all: Vec<(u32, u32)> = match &self.candidates {
            Candidates::Pairs(pairs) => {
                host.words::<u32>(pairs)?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
            }
            Candidates::Scores { scores, removed, skip, first_id } => {
                let removed = host.words::<u32>(removed)?;
                let scores = host.floats(scores)?;
                let pair = |(i, &score): (usize, &f32)| {
                    let row = i % count;
                    let key = if is_removed(&removed, skip + row) { 0 } else { key_of(score) };
                    (key, first_id + row as u32)
                };
                scores.iter().enumerate().map(pair).collect()
            }
        };
        let mut y = host.words::<u32>(&self.y)?;
        for query in 0..queries {
            let own = &all[query * count..][..count];
            for (group, candidates) in own.chunks(WORKGROUP as usize * held(top, MOST_HELD)).enumerate() {
                let at = (query * self.total_groups() + self.first_group + group) * top;
                for (i, (key, id)) in best(candidates.to_vec(), top).into_iter().enumerate() {
                    y[2 * (at + i)..][..2].copy_from_slice(&[key, id]);
                }
            }
        }
        host.set(&self.y, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (queries, count, top, pairs) in
        [(1, 9_000, 5, true), (3, 4_100, 1, true), (2, 700, 256, true), (2, 9_000, 5, false), (1, 1_000, 64, false)]
    {
        let mut builder = CaseBuilder::new((count + top) as u64);
        let (skip, first_id) = (32, 500);
        // Few different scores: most are equal. NaN is never chosen.
        let mut scores: Vec<f32> = (0..queries * count).map(|_| (builder.bits() % 40) as f32 - 20.0).collect();
        scores[count / 2] = f32::NAN;
        scores[count / 3] = f32::NEG_INFINITY;
        let candidates = if pairs {
            let ids: Vec<u32> = (0..queries * count).map(|i| (i as u32).wrapping_mul(2_654_435_761)).collect();
            let words: Vec<u32> = scores.iter().zip(ids).flat_map(|(&score, id)| [key_of(score), id]).collect();
            Candidates::Pairs(builder.words(&[queries, count, 2], &words))
        } else {
            let removed: Vec<u32> = (0..(skip + count).div_ceil(32)).map(|_| builder.bits() & builder.bits()).collect();
            let scores = builder.floats(&[queries, count], &scores);
            Candidates::Scores { scores, removed: builder.words(&[removed.len()], &removed), skip, first_id }
        };
        let total = groups(count, top) + 2;
        let y = builder.words(&[queries, total, top, 2], &vec![3; queries * total * top * 2]);
        builder.updated(&y, Compare::Exact);
        let name = format!("{queries} of {count} {}, best {top}", if pairs { "pairs" } else { "scores" });
        cases.push(builder.case(name, TopK { candidates, y, first_group: 1 }));
    }
    cases
}
