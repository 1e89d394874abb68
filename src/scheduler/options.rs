//! What a scheduler holds and how it works, and what it has done.

use crate::error::{Error, Result};
use crate::kernels::cache::PAGE;

/// What a [`Scheduler`](super::Scheduler) holds and how it works.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerOptions {
    /// Positions a sequence can have; 0: what the model was made for. Rounded up to whole pages of 64.
    pub context_length: usize,
    /// Sequences that run side by side, at most; others wait.
    pub slots: usize,
    /// Pages of 64 positions that all sequences share; 0: as many as all slots have positions for. At least one sequence's.
    pub pages: usize,
    /// Tokens of a prefill chunk, of which one goes between two decode steps: more make prompts faster, fewer make running
    /// sequences steadier. Fewer where the device's bindings are small.
    pub chunk: usize,
    /// Decode steps, each with the chunk behind it, that are submitted before the oldest one's tokens have been read back.
    pub ahead: usize,
    /// A request's tokens do not depend on which others run beside it, to the bit: decode always runs over all slots, prompts
    /// are shared by whole chunks, and a request that lost its pages is computed again step by step. Slower with few requests.
    pub deterministic: bool,
    /// Compute everything in f32 without subgroups, integer dot products and matrix units.
    pub plain: bool,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self { context_length: 0, slots: 8, pages: 0, chunk: 256, ahead: 2, deterministic: false, plain: false }
    }
}

impl SchedulerOptions {
    /// An error unless a scheduler can work like that.
    pub(super) fn check(&self) -> Result<()> {
        match self.slots == 0 || self.chunk == 0 || self.ahead == 0 {
            true => Err(Error::shape(format!("{self:?}: expected no 0 but for context_length and pages"))),
            false => Ok(()),
        }
    }

    /// The numbers of slots that there are decode plans for, ascending: one for all, and smaller ones for when few run.
    pub(super) fn sizes(&self) -> Vec<usize> {
        if self.deterministic {
            return vec![self.slots];
        }
        let mut sizes: Vec<usize> = [1, 4].into_iter().filter(|&size| size < self.slots).collect();
        let mut size = 8;
        while size < self.slots {
            sizes.push(size);
            size *= 2;
        }
        sizes.push(self.slots);
        sizes
    }

    /// Pages of a prompt that are shared only together, where a chunk has `chunk` tokens.
    pub(super) fn unit(&self, chunk: usize) -> usize {
        // A row of keys depends on the rows that its plan has, hence on where chunks begin and end.
        if self.deterministic { chunk / greatest_common_divisor(chunk, PAGE) } else { 1 }
    }

    /// How many of a prompt's first `computed` tokens others may share.
    pub(super) fn shareable(&self, computed: usize, chunk: usize) -> usize {
        if self.deterministic { computed / chunk * chunk } else { computed }
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// What a scheduler has done since it began, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens that went through prefill.
    pub prefilled: usize,
    /// Tokens of prompts that were found in the cache.
    pub shared: usize,
    /// Decode steps submitted.
    pub steps: usize,
    /// Slots of those steps, with and without a sequence.
    pub step_slots: usize,
    /// Tokens given to streams.
    pub delivered: usize,
    /// Requests that had to give up their pages and are, or were, computed again.
    pub preempted: usize,
    /// Requests in slots now.
    pub running: usize,
    /// Requests waiting for a slot or for pages now.
    pub waiting: usize,
    /// Pages that requests hold now.
    pub pages_used: usize,
    /// Pages that no request holds and whose tokens can still be found.
    pub pages_idle: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_end_with_all_slots() {
        let sizes = |slots, deterministic| SchedulerOptions { slots, deterministic, ..Default::default() }.sizes();
        assert_eq!(sizes(1, false), [1]);
        assert_eq!(sizes(4, false), [1, 4]);
        assert_eq!(sizes(6, false), [1, 4, 6]);
        assert_eq!(sizes(32, false), [1, 4, 8, 16, 32]);
        assert_eq!(sizes(32, true), [32]);
    }

    #[test]
    fn units_are_whole_pages_and_whole_chunks() {
        for deterministic in [false, true] {
            let options = SchedulerOptions { deterministic, ..Default::default() };
            for chunk in [1, 16, 48, 64, 96, 256] {
                let unit = options.unit(chunk);
                assert!(!deterministic || (unit * PAGE).is_multiple_of(chunk), "{chunk}: {unit}");
                assert!(unit <= chunk.max(1) && (deterministic || unit == 1), "{chunk}: {unit}");
            }
        }
    }
}
