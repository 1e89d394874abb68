//! How tokens are chosen, how long, and what a session may hold.

use crate::error::{Error, Result};
use crate::kernels::sample::{HISTORY, SlotSampling};

/// How the next token is chosen. The filters work on untempered probabilities, in the order of the fields, as
/// llama.cpp's.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: always the likeliest token (greedy).
    pub temperature: f32,
    /// Keep this many likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens that reach this probability together; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this times as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 leaves them.
    pub repetition_penalty: f32,
    /// How many recent tokens the penalty sees, at most 256.
    pub repetition_window: u32,
    /// The same seed on the same adapter gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    pub(crate) fn to_slot(&self) -> Result<SlotSampling> {
        let check = |holds: bool, name: &str, value: f64, expected: &str| match holds {
            true => Ok(()),
            false => Err(Error::shape(format!("sampling {name}: found {value}, expected {expected}"))),
        };
        let f = f64::from;
        check(
            self.temperature >= 0.0 && self.temperature.is_finite(),
            "temperature",
            f(self.temperature),
            "0 or more",
        )?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", f(self.top_p), "more than 0, up to 1")?;
        check((0.0..=1.0).contains(&self.min_p), "min_p", f(self.min_p), "0 to 1")?;
        let penalty = self.repetition_penalty;
        check(penalty > 0.0 && penalty.is_finite(), "repetition_penalty", f(penalty), "more than 0")?;
        let window = self.repetition_window;
        check(window as usize <= HISTORY, "repetition_window", f64::from(window), "at most 256")?;
        Ok(SlotSampling {
            temperature: self.temperature,
            top_p: self.top_p,
            min_p: self.min_p,
            penalty,
            top_k: self.top_k,
            penalty_last: window,
            seed_low: self.seed as u32,
            seed_high: (self.seed >> 32) as u32,
        })
    }
}

/// What happens when a conversation reaches the end of its context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextFull {
    /// The stream ends with an error.
    #[default]
    Error,
    /// The older half of what follows the first `keep` tokens is forgotten and the rest computed anew.
    Shift {
        /// Tokens at the start that stay: a system prompt.
        keep: usize,
    },
}

/// One generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The most tokens; 0: as many as the context holds.
    pub max_tokens: usize,
    /// Tokens that end the text; they are not delivered.
    pub stop_tokens: Vec<u32>,
    /// At the end of the context.
    pub when_full: ContextFull,
}

/// What a session holds and how it works.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
    /// Positions a sequence can have; 0: what the model was made for. Rounded up to whole pages of 64.
    pub context_length: usize,
    /// Sequences that decode side by side.
    pub slots: usize,
    /// Tokens of a prefill chunk, at most; 0: 2048 where kernels multiply by cooperative matrices of 16, 512 elsewhere; fewer where
    /// bindings are small or memory is short. A cancelled prompt leaves up to two chunks running.
    pub chunk: usize,
    /// The most decode steps submitted before the oldest one's token has been read back; 1 waits for every token. With 2 a
    /// cancelled generation leaves the step that runs and one behind it. More than 2 are used as far as they are 40 ms of work.
    pub ahead: usize,
    /// The same kernels at every position, so that a token's logits do not depend on how long the context may become: attention
    /// of short contexts takes no variant of its own. The same seed on the same adapter gives the same text either way, since
    /// all other choices follow from the device's profile.
    pub deterministic: bool,
    /// Compute everything in f32 without subgroups, integer dot products and matrix units: the path that others are
    /// checked against.
    pub plain: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { context_length: 0, slots: 1, chunk: 0, ahead: 2, deterministic: false, plain: false }
    }
}
