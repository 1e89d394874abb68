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
        // As `extend` cuts them: chunks without outputs, then the last with one.
        let chunks = self.slots.chunks(rest);
        let mut phases: Vec<Phase> = Vec::new();
        for (i, &count) in chunks.iter().enumerate() {
            let last = i + 1 == chunks.len();
            let phase = Phase::Prefill { rows: self.slots.rows_for(count), outputs: last.into(), sample: last };
            if !phases.contains(&phase) {
                phases.push(phase);
            }
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
