//! The next token of each sequence from its logits: repetition penalty, then greedy, or top-k, top-p, min-p and a draw at
//! a temperature, in llama.cpp's order (filters see untempered probabilities).
//!
//! Tokens whose logit equals that of the last one that a filter keeps are kept too. The draw is a hash of the seed and
//! the position (pcg3d, Jarzynski and Olano 2020), so that replays and batches draw the same.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, linear_grid, read, write};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

/// Positions that the history keeps for the repetition penalty.
pub const HISTORY: usize = 256;
const UNIT: f32 = 1_073_741_824.0;

/// How a sequence's tokens are chosen, as the GPU reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SlotSampling {
    /// 0 or less: greedy.
    pub temperature: f32,
    /// Keep the likeliest tokens that reach this probability together; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this times as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 leaves them.
    pub penalty: f32,
    /// Keep this many likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// How many recent tokens are penalised, at most [`HISTORY`].
    pub penalty_last: u32,
    /// Seed, lower half.
    pub seed_low: u32,
    /// Seed, upper half.
    pub seed_high: u32,
}

/// Sampling for R rows of logits.
#[derive(Clone, Debug)]
pub struct Sample {
    /// `slot_of[R_all]`: the slot of each output row of the plan.
    pub slot_of: Tensor,
    /// The output row that `logits` start with.
    pub first: usize,
    /// `sampling[S, 8]`: a [`SlotSampling`] each.
    pub sampling: Tensor,
    /// `logits[R, vocabulary]`; penalties change them.
    pub logits: Tensor,
    /// `slots[S, 4]`: token, slot, position, active. Token and position advance.
    pub slots: Tensor,
    /// `history[S, HISTORY]`.
    pub history: Tensor,
}

params! {
    struct Uniform { rows: u32, first: u32 }
}

impl Kernel for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn check(&self) -> Result<()> {
        let slots = self.slots.rows();
        expect_shape("sample", "sampling", self.sampling.shape(), &[slots, 8])?;
        expect_shape("sample", "slots", self.slots.shape(), &[slots, 4])?;
        expect_shape("sample", "history", self.history.shape(), &[slots, HISTORY])?;
        expect("sample", self.first + self.logits.rows() <= self.slot_of.len(), || {
            format!("{} rows of logits from {}, expected at most {}", self.logits.rows(), self.first, self.slot_of.len())
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        Spec::new("sample", Target::of(profile))
            .constant("VOCAB", self.logits.cols() as u32)
            .constant("HISTORY", HISTORY as u32)
            .constant("WORKGROUP", super::rms_norm::row_workgroup(profile))
            .trusted()
    }

    fn params(&self) -> Params {
        Uniform { rows: self.logits.rows() as u32, first: self.first as u32 }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.logits.rows(), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.slot_of), read(&self.sampling), write(&self.logits), write(&self.slots), write(&self.history)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let slot_of = host.words::<u32>(&self.slot_of)?;
        let sampling = host.words::<SlotSampling>(&self.sampling)?;
        let (mut logits, mut slots) = (host.floats(&self.logits)?, host.words::<[u32; 4]>(&self.slots)?);
        let mut history = host.words::<u32>(&self.history)?;
        for (row, logits) in logits.chunks_exact_mut(self.logits.cols()).enumerate() {
            let slot = slot_of[self.first + row] as usize;
            let [_, _, position, active] = slots[slot];
            let history = &mut history[slot * HISTORY..][..HISTORY];
            let next = choose(&sampling[slot], logits, history, position);
            if active != 0 {
                slots[slot] = [next, slot as u32, position + 1, 1];
                history[(position as usize + 1) % HISTORY] = next;
            }
        }
        host.set(&self.logits, &logits)?;
        host.set(&self.slots, &slots)?;
        host.set(&self.history, &history)
    }
}

/// Penalises `logits` in place and returns the next token: the plain form of what the shader does.
pub fn choose(sampling: &SlotSampling, logits: &mut [f32], history: &[u32], position: u32) -> u32 {
    if sampling.penalty != 1.0 {
        let window = (sampling.penalty_last as usize).min(HISTORY).min(position as usize + 1);
        let mut recent: Vec<u32> = (0..window).map(|i| history[(position as usize - i) % HISTORY]).collect();
        recent.sort_unstable();
        recent.dedup();
        for token in recent {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / sampling.penalty } else { *logit * sampling.penalty };
            }
        }
    }
    let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
    if sampling.temperature <= 0.0 {
        return best as u32;
    }
    let largest = logits[best];
    let mut kept: Vec<usize> = (0..logits.len()).collect();
    kept.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let mut floor = f32::NEG_INFINITY;
    if sampling.top_k > 0 && (sampling.top_k as usize) < kept.len() {
        floor = logits[kept[sampling.top_k as usize - 1]];
        kept.retain(|&token| logits[token] >= floor);
    }
    let weights = |kept: &[usize], inverse: f32| -> Vec<u32> {
        let exp = |token: usize| f64::from((logits[token] - largest) * inverse).exp();
        let total: f64 = kept.iter().map(|&token| exp(token)).sum();
        kept.iter().map(|&token| (exp(token) / total * f64::from(UNIT)) as u32).collect()
    };
    if sampling.top_p < 1.0 {
        let wanted = ((sampling.top_p * UNIT) as u32).max(1);
        let mut reached = 0;
        for (&token, weight) in kept.iter().zip(weights(&kept, 1.0)) {
            reached += weight;
            if reached >= wanted {
                floor = floor.max(logits[token]);
                break;
            }
        }
    }
    if sampling.min_p > 0.0 {
        floor = floor.max(largest + sampling.min_p.ln());
    }
    kept.retain(|&token| logits[token] >= floor.min(largest));
    kept.sort_unstable();
    let weights = weights(&kept, 1.0 / sampling.temperature);
    let all: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let mut drawn = ((u64::from(random([sampling.seed_low, sampling.seed_high, position])) * all) >> 32) as u32;
    for (&token, weight) in kept.iter().zip(weights) {
        if drawn < weight {
            return token as u32;
        }
        drawn -= weight;
    }
    best as u32
}

/// pcg3d, first component.
fn random(input: [u32; 3]) -> u32 {
    let [mut x, mut y, mut z] = input.map(|v| v.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    x = x.wrapping_add(y.wrapping_mul(z));
    y = y.wrapping_add(z.wrapping_mul(x));
    z = z.wrapping_add(x.wrapping_mul(y));
    (x, y, z) = (x ^ (x >> 16), y ^ (y >> 16), z ^ (z >> 16));
    x.wrapping_add(y.wrapping_mul(z))
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let greedy = SlotSampling {
        temperature: 0.0,
        top_p: 1.0,
        min_p: 0.0,
        penalty: 1.0,
        top_k: 0,
        penalty_last: 64,
        seed_low: 7,
        seed_high: 1,
    };
    let warm = SlotSampling { temperature: 0.8, ..greedy };
    let settings = [
        ("greedy", greedy),
        ("temperature", warm),
        ("top-k", SlotSampling { top_k: 5, temperature: 3.0, ..warm }),
        ("top-p", SlotSampling { top_p: 0.9, temperature: 2.0, ..warm }),
        ("min-p", SlotSampling { min_p: 0.05, temperature: 4.0, ..warm }),
        ("penalty", SlotSampling { penalty: 1.5, ..greedy }),
        ("all", SlotSampling { top_k: 40, top_p: 0.95, min_p: 0.01, penalty: 1.1, seed_low: 3, ..warm }),
        ("top-k 1", SlotSampling { top_k: 1, ..warm }),
        ("tiny top-p", SlotSampling { top_p: 1e-6, ..warm }),
    ];
    let mut cases = Vec::new();
    for (index, (name, sampling)) in settings.into_iter().enumerate() {
        for vocabulary in [11usize, 1000] {
            let mut builder = CaseBuilder::new((index * 2000 + vocabulary) as u64);
            let slots: Vec<u32> = [[9, 0, 0, 1], [9, 1, 300, 1], [9, 2, 5, 0], [9, 3, 63, 1]].concat();
            let slot_of = builder.words(&[5], &[0, 3, 1, 2, 0]);
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(&[sampling; 4]);
            let sampling = builder.words(&[4, 8], &words);
            // Five outputs, of which the last four stand here: slots 3, 1, 2 and 0.
            let values: Vec<f32> = builder.normals(4 * vocabulary).iter().map(|v| 0.5 * v).collect();
            let logits = builder.floats(&[4, vocabulary], &values);
            let history: Vec<u32> = (0..4 * HISTORY).map(|_| builder.bits() % vocabulary as u32).collect();
            let slots = builder.words(&[4, 4], &slots);
            let history = builder.words(&[4, HISTORY], &history);
            builder.updated(&slots, Compare::Exact);
            builder.updated(&history, Compare::Exact);
            // One product or quotient.
            builder.updated(&logits, Compare::Nmse(1e-13));
            let kernel = Sample { slot_of, first: 1, sampling, logits, slots, history };
            cases.push(builder.case(format!("{name} of {vocabulary}"), kernel));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let sampling = SlotSampling {
            temperature: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            penalty: 1.0,
            top_k: 0,
            penalty_last: 0,
            seed_low: 1,
            seed_high: 2,
        };
        let probabilities = [0.5f32, 0.25, 0.125, 0.125];
        let mut counts = [0u32; 4];
        let draws = 20_000;
        for position in 0..draws {
            let mut logits = probabilities.map(f32::ln);
            counts[choose(&sampling, &mut logits, &[0; HISTORY], position) as usize] += 1;
        }
        for (count, p) in counts.iter().zip(probabilities) {
            let found = *count as f32 / draws as f32;
            // Four standard deviations of a binomial.
            let allowed = 4.0 * (p * (1.0 - p) / draws as f32).sqrt();
            assert!((found - p).abs() < allowed, "found {found}, expected {p} ± {allowed}");
        }
    }
}
