//! States on their way from the GPU, of steps that were submitted some at a time, and how many of them are to be under way.

use std::collections::VecDeque;

use web_time::Instant;

use crate::error::Result;
use crate::generate::slots::{SlotState, states};
use crate::gpu::readback::Pending;

/// The most steps that are submitted together.
const MOST_TOGETHER: usize = 4;
/// Milliseconds of steps that are submitted together: longer bursts of tokens would be seen.
const TOGETHER_MS: f64 = 10.0;
/// Milliseconds of steps under way: a browser has a few of them to answer a read-back, and a generation that is cancelled
/// leaves what is under way to run out.
const AHEAD_MS: f64 = 40.0;
/// Steps under way as long as nothing is known of how long they take.
const AHEAD_UNKNOWN: usize = 8;

/// Read-backs of steps' states, oldest first.
#[derive(Default)]
pub(in crate::generate) struct Arrivals {
    pending: VecDeque<(Pending, usize)>,
    /// Of the last read-back that came, what has not been taken.
    arrived: VecDeque<Vec<SlotState>>,
    /// When a read-back came last.
    last: Option<Instant>,
    /// Milliseconds between steps.
    step_ms: Option<f64>,
}

impl Arrivals {
    /// None yet; steps took `step_ms` before.
    pub fn new(step_ms: Option<f64>) -> Self {
        Self { step_ms, ..Self::default() }
    }

    /// Milliseconds between steps, where that is known.
    pub fn step_ms(&self) -> Option<f64> {
        self.step_ms
    }

    /// Adds the read-back of `count` steps.
    pub fn push(&mut self, pending: Pending, count: usize) {
        self.pending.push_back((pending, count));
    }

    /// Steps whose states have not been taken.
    pub fn len(&self) -> usize {
        self.arrived.len() + self.pending.iter().map(|(_, count)| count).sum::<usize>()
    }

    /// Steps to submit now, together, where at most `ahead` are to be under way: half of them at once, so that the device has
    /// the other half meanwhile, and few where it waits for them.
    pub fn room(&self, ahead: usize) -> usize {
        let steps = |ms: f64| self.step_ms.map(|step| (ms / step) as usize);
        let ahead = ahead.min(steps(AHEAD_MS).unwrap_or(AHEAD_UNKNOWN).max(2));
        let most = steps(TOGETHER_MS).unwrap_or(1).min(ahead / 2).min(self.len());
        let count = most.clamp(1, MOST_TOGETHER);
        if self.len() + count > ahead { 0 } else { count }
    }

    /// The states of all slots after the next step; `None` where no step is left. `arrived` is told of how many came at once.
    ///
    /// # Errors
    /// What the device reported.
    pub async fn next(&mut self, mut arrived: impl FnMut(usize)) -> Result<Option<Vec<SlotState>>> {
        if self.arrived.is_empty()
            && let Some((pending, count)) = self.pending.pop_front()
        {
            let all = states(&pending.bytes().await?);
            self.arrived.extend(all.chunks(all.len() / count).map(<[SlotState]>::to_vec));
            let now = Instant::now();
            if let Some(last) = self.last.replace(now) {
                let ms = (now - last).as_secs_f64() * 1e3 / count as f64;
                // Two read-backs may come at once, the second after no time: an average, and never zero, which others divide by.
                let known = self.step_ms.unwrap_or(ms);
                self.step_ms = Some((0.75 * known + 0.25 * ms).max(0.05));
            }
            arrived(count);
        }
        Ok(self.arrived.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_steps_while_the_device_waits_and_no_more_than_their_time_allows() {
        let room = |step_ms, len: usize, ahead| {
            let arrived = vec![Vec::new(); len].into();
            Arrivals { step_ms, arrived, ..Arrivals::default() }.room(ahead)
        };
        for (step_ms, len, ahead, expected) in [
            (None, 0, 24, 1),
            (None, 7, 24, 1),
            (None, 8, 24, 0),
            (Some(0.8), 0, 24, 1),
            (Some(0.8), 2, 24, 2),
            (Some(0.8), 20, 24, 4),
            (Some(0.8), 21, 24, 0),
            (Some(4.0), 6, 24, 2),
            (Some(4.0), 9, 24, 0),
            (Some(50.0), 1, 24, 1),
            (Some(50.0), 2, 24, 0),
            (Some(0.8), 1, 2, 1),
            (Some(0.8), 2, 2, 0),
            (Some(0.8), 0, 1, 1),
            (Some(0.8), 1, 1, 0),
        ] {
            assert_eq!(room(step_ms, len, ahead), expected, "{step_ms:?} ms, {len} of {ahead}");
        }
    }
}
