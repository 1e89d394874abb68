//! The best of many candidates: of keys by their places, or of what earlier dispatches chose. One dispatch
//! leaves `top` of every few thousand; repeated, it leaves the best of all.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read, write};
use super::ranking::{WORKGROUP, best, check_top, held, key_of, selecting};
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
    /// `keys[Q, N]`: the id of each is its place among N.
    Keys(Tensor),
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
    struct Uniform { count: u32, groups: u32, first_group: u32 }
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
        let (Candidates::Pairs(candidates) | Candidates::Keys(candidates)) = &self.candidates;
        let shape = candidates.shape();
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
            Candidates::Keys(keys) => expect_shape("top_k", "keys", keys.shape(), &[queries, count])?,
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
            Candidates::Keys(_) => "top_k/keys",
        };
        selecting(Spec::new("top_k", Target::of(profile)), profile, top, held).slot("candidates", candidates).trusted()
    }

    fn params(&self) -> Params {
        Uniform {
            count: self.dims()[1] as u32,
            groups: self.total_groups() as u32,
            first_group: self.first_group as u32,
        }
        .into()
    }

    fn grid(&self, _profile: &Profile, _context: usize) -> [u32; 3] {
        let [queries, count] = self.dims();
        [groups(count, self.top()) as u32, queries as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        let (Candidates::Pairs(candidates) | Candidates::Keys(candidates)) = &self.candidates;
        vec![read(candidates), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let ([queries, count], top) = (self.dims(), self.top());
        let all: Vec<(u32, u32)> = match &self.candidates {
            Candidates::Pairs(pairs) => {
                host.words::<u32>(pairs)?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
            }
            Candidates::Keys(keys) => {
                (0..).zip(host.words::<u32>(keys)?).map(|(i, key)| (key, (i % count) as u32)).collect()
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
        // Few different scores: most are equal. NaN is never chosen.
        let mut scores: Vec<f32> = (0..queries * count).map(|_| (builder.bits() % 40) as f32 - 20.0).collect();
        scores[count / 2] = f32::NAN;
        scores[count / 3] = f32::NEG_INFINITY;
        let keys = scores.iter().map(|&score| key_of(score));
        let candidates = if pairs {
            let ids = (0..queries * count).map(|i| (i as u32).wrapping_mul(2_654_435_761));
            let words: Vec<u32> = keys.zip(ids).flat_map(|(key, id)| [key, id]).collect();
            Candidates::Pairs(builder.words(&[queries, count, 2], &words))
        } else {
            Candidates::Keys(builder.words(&[queries, count], &keys.collect::<Vec<_>>()))
        };
        let total = groups(count, top) + 2;
        let y = builder.words(&[queries, total, top, 2], &vec![3; queries * total * top * 2]);
        builder.updated(&y, Compare::Exact);
        let name = format!("{queries} of {count} {}, best {top}", if pairs { "pairs" } else { "keys" });
        cases.push(builder.case(name, TopK { candidates, y, first_group: 1 }));
    }
    cases
}
