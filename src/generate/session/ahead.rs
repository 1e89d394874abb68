//! What a generation will need compiled, so that a caller can have it compiled side by side before it starts.

use super::Session;
use crate::error::Result;
use crate::gpu::pipeline::Uncompiled;
use crate::models::llama::plan::Phase;

impl Session {
    /// The phases that [`Session::generate`] from these tokens goes through and that have no plan yet.
    pub fn missing_phases(&self, tokens: &[u32]) -> Vec<Phase> {
        let shared = self.tokens(0).iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let rest = tokens.len() - shared.min(tokens.len().saturating_sub(1));
        // As `extend` cuts them: whole chunks without outputs, then the tail with one.
        let (whole, tail) = match rest.checked_sub(1) {
            Some(last) => (last / self.slots.chunk(), last % self.slots.chunk() + 1),
            None => (0, 0),
        };
        let mut phases = Vec::new();
        if whole > 0 {
            phases.push(Phase::Prefill { rows: self.slots.rows_for(self.slots.chunk()), outputs: 0, sample: false });
        }
        if tail > 0 {
            phases.push(Phase::Prefill { rows: self.slots.rows_for(tail), outputs: 1, sample: true });
        }
        phases.push(self.decode_phase(tokens.len()));
        phases.retain(|phase| !self.slots.is_prepared(*phase));
        phases
    }

    /// The shaders of a phase that the device has not compiled yet.
    ///
    /// # Errors
    /// `OutOfMemory` where the phase's inputs do not fit; `Shape` where the device's limits do not hold it.
    pub fn uncompiled(&self, phase: Phase) -> Result<Vec<Uncompiled>> {
        self.slots.written(phase)?.uncompiled()
    }
}
