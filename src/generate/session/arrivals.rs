//! States on their way from the GPU, of steps that were submitted some at a time.

use std::collections::VecDeque;

use crate::error::Result;
use crate::generate::slots::{SlotState, states};
use crate::gpu::readback::Pending;

/// Read-backs of steps' states, oldest first.
#[derive(Default)]
pub(in crate::generate) struct Arrivals {
    pending: VecDeque<(Pending, usize)>,
    /// Of the last read-back that came, what has not been taken.
    arrived: VecDeque<Vec<SlotState>>,
}

impl Arrivals {
    /// Adds the read-back of `count` steps.
    pub fn push(&mut self, pending: Pending, count: usize) {
        self.pending.push_back((pending, count));
    }

    /// Steps whose states have not been taken.
    pub fn len(&self) -> usize {
        self.arrived.len() + self.pending.iter().map(|(_, count)| count).sum::<usize>()
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
            arrived(count);
        }
        Ok(self.arrived.pop_front())
    }
}
