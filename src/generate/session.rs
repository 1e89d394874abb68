//! [`Session`]: the cache and the plans of one or more conversations with a model.

mod ahead;
mod arrivals;

use super::model::Model;
use super::options::{Sampling, SessionOptions};
use super::slots::{Layout, Slots, full};
use crate::error::{Error, Result};
use crate::gpu::readback::Pending;
use crate::models::llama::plan::{CHUNK, Phase, output_rows};
use crate::plan::Plan;

pub(super) use arrivals::Arrivals;

/// One or more conversations: their cache, the tokens in it, and the plans that extend it.
///
/// Every method takes `&mut self`: a session does one thing at a time; several sessions of a model run side by side.
pub struct Session {
    slots: Slots,
    options: SessionOptions,
    /// The tokens whose keys and values are in the cache, a list a slot.
    pub(super) tokens: Vec<Vec<u32>>,
    prefilled: usize,
    /// Milliseconds between decode steps, where some have been awaited.
    pub(super) step_ms: Option<f64>,
}

impl Model {
    /// A session with its own cache.
    ///
    /// # Errors
    /// `OutOfMemory` where the cache does not fit; `Shape` for options out of range.
    pub fn session(&self, options: SessionOptions) -> Result<Session> {
        if options.slots == 0 || options.ahead == 0 {
            return Err(Error::shape(format!(
                "session options {options:?}: expected no 0 but for context_length and chunk"
            )));
        }
        let layout = Layout {
            slots: options.slots,
            context_length: options.context_length,
            pages: None,
            chunk: options.chunk,
            deterministic: options.deterministic,
            plain: options.plain,
        };
        let tokens = vec![Vec::new(); options.slots];
        Ok(Session { slots: Slots::new(self, &layout)?, options, tokens, prefilled: 0, step_ms: None })
    }
}

impl Session {
    /// The model.
    pub fn model(&self) -> &Model {
        self.slots.model()
    }

    /// Tokens of a prefill chunk, at most.
    pub fn chunk(&self) -> usize {
        self.slots.chunk()
    }

    /// The chunks that a prompt of `count` tokens is cut into.
    pub fn chunks(&self, count: usize) -> Vec<usize> {
        self.slots.chunks(count)
    }

    /// Rows of the plan of a chunk of `count` tokens.
    pub fn rows_for(&self, count: usize) -> usize {
        self.slots.rows_for(count)
    }

    /// How it works.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Positions that a sequence can have.
    pub fn context_length(&self) -> usize {
        self.slots.context_length()
    }

    /// The tokens of a slot whose keys and values are in the cache.
    pub fn tokens(&self, slot: usize) -> &[u32] {
        self.tokens.get(slot).map_or(&[], Vec::as_slice)
    }

    /// Tokens that went through prefill since the session began: what [`Self::extend`] found in the cache is not among
    /// them.
    pub fn prefilled_tokens(&self) -> usize {
        self.prefilled
    }

    /// Forgets a slot's tokens.
    pub fn clear(&mut self, slot: usize) {
        if let Some(tokens) = self.tokens.get_mut(slot) {
            tokens.clear();
        }
    }

    /// Forgets a slot's tokens from `len` on.
    pub fn truncate(&mut self, slot: usize, len: usize) {
        if let Some(tokens) = self.tokens.get_mut(slot) {
            tokens.truncate(len);
        }
    }

    /// The phase that decodes a token at position `longest` or before it.
    pub fn decode_phase(&self, longest: usize) -> Phase {
        self.slots.decode_phase(self.options.slots, longest)
    }

    /// The plan of a phase, built at its first use.
    ///
    /// # Errors
    /// `OutOfMemory`, or `Adapter` where a shader is refused.
    pub fn prepare(&mut self, phase: Phase) -> Result<&Plan> {
        self.slots.prepare(self.options.slots, phase)
    }

    fn check_slot(&self, slot: usize) -> Result<()> {
        match slot < self.options.slots {
            true => Ok(()),
            false => Err(Error::shape(format!("slot {slot}: expected one of {}", self.options.slots))),
        }
    }

    fn check_tokens(&self, slot: usize, tokens: &[u32]) -> Result<()> {
        self.check_slot(slot)?;
        self.slots.check_tokens(tokens)?;
        let (held, room) = (self.tokens[slot].len(), self.context_length());
        if held + tokens.len() > room {
            return Err(full(held + tokens.len(), room));
        }
        Ok(())
    }

    /// Submits one chunk of a slot's tokens; `outputs` of its last rows get logits, and a token where `sample`.
    fn submit_chunk(&mut self, slot: usize, tokens: &[u32], outputs: usize, sample: bool) -> Result<Phase> {
        let phase = self.slots.submit_chunk(slot, self.tokens[slot].len(), tokens, outputs, sample)?;
        self.tokens[slot].extend_from_slice(tokens);
        self.prefilled += tokens.len();
        Ok(phase)
    }

    /// Waits until the GPU has done what was submitted.
    ///
    /// # Errors
    /// What the device reported.
    pub async fn finish(&self) -> Result<()> {
        self.slots.context().finish().await
    }

    /// Puts `tokens` behind those of a slot, without logits.
    ///
    /// # Errors
    /// `Shape` where a token is out of range or the context full.
    pub async fn prefill(&mut self, slot: usize, tokens: &[u32]) -> Result<()> {
        self.check_tokens(slot, tokens)?;
        let chunks = self.slots.cut(tokens.len(), 0, false)?;
        self.prefill_ahead(slot, tokens, &chunks).await?;
        self.finish().await
    }

    /// [`Self::prefill`] that leaves its last chunk running. The device has the next chunk when it is done with one, and
    /// dropping this future leaves at most two.
    async fn prefill_ahead(&mut self, slot: usize, tokens: &[u32], chunks: &[usize]) -> Result<()> {
        let mut running = None;
        let mut left = tokens;
        for &count in chunks {
            let (chunk, rest) = left.split_at(count);
            left = rest;
            self.submit_chunk(slot, chunk, 0, false)?;
            if let Some(before) = running.replace(self.slots.context().finished()) {
                before.await?;
            }
        }
        Ok(())
    }

    /// Submits all chunks of `tokens` but the last one, which will have a row of logits, and a token where `sample`; returns that.
    async fn prefill_to_last<'a>(&mut self, slot: usize, tokens: &'a [u32], sample: bool) -> Result<&'a [u32]> {
        let mut chunks = self.slots.cut(tokens.len(), 1, sample)?;
        let (first, last) = tokens.split_at(tokens.len() - chunks.pop().unwrap_or(0));
        self.prefill_ahead(slot, first, &chunks).await?;
        Ok(last)
    }

    /// Puts `tokens` behind those of a slot and returns the logits of the last one: `[vocabulary]`. The way to choose
    /// tokens on the host.
    ///
    /// # Errors
    /// `Shape` where there is no token, one is out of range, or the context is full.
    pub async fn forward(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>> {
        self.check_tokens(slot, tokens)?;
        if tokens.is_empty() {
            return Err(Error::shape("forward: found no token, expected at least one"));
        }
        let tail = self.prefill_to_last(slot, tokens, false).await?;
        let phase = self.submit_chunk(slot, tail, 1, false)?;
        self.slots.read_logits(phase, 1).await
    }

    /// Puts `tokens` behind those of a slot and returns the logits of all of them: `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub async fn forward_all(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>> {
        self.check_tokens(slot, tokens)?;
        let rows = output_rows(self.model().config(), self.slots.profile(), self.chunk().min(CHUNK));
        // Whole plans of equal size: the largest power of two that fits.
        let rows = if rows.is_power_of_two() { rows } else { rows.next_power_of_two() / 2 };
        let mut logits = Vec::with_capacity(tokens.len() * self.model().config().vocab_size);
        for chunk in tokens.chunks(rows.max(1)) {
            // A single row would be planned as the last one of a chunk, which it is.
            let phase = self.submit_chunk(slot, chunk, chunk.len(), false)?;
            logits.extend(self.slots.read_logits(phase, chunk.len()).await?);
        }
        Ok(logits)
    }

    /// Keeps what a slot's cache shares with `tokens` and computes the rest, in chunks; the token that follows is chosen
    /// on the GPU and left there for [`Self::step`].
    ///
    /// # Errors
    /// `Shape` where there is no token, one is out of range, or the context is full.
    pub async fn extend(&mut self, slot: usize, tokens: &[u32], sampling: &Sampling) -> Result<()> {
        self.check_slot(slot)?;
        let shared = self.tokens[slot].iter().zip(tokens).take_while(|(a, b)| a == b).count();
        // The last token is fed again even if it is there: its logits are wanted.
        let shared = shared.min(tokens.len().saturating_sub(1));
        self.truncate(slot, shared);
        let rest = &tokens[shared..];
        if rest.is_empty() {
            return Err(Error::shape("prompt: found no token, expected at least one"));
        }
        self.check_tokens(slot, rest)?;
        self.slots.write_sampling(slot, sampling, tokens)?;
        let tail = self.prefill_to_last(slot, rest, true).await?;
        // Sampling moves the position on to that of the token which it chooses.
        self.slots.write_slot(slot, 0, tokens.len() - 1, true)?;
        self.submit_chunk(slot, tail, 1, true)?;
        Ok(())
    }

    /// Submits one decode step of all active slots; the newest position of any is `longest`.
    ///
    /// # Errors
    /// `Shape` where `longest` is past the context; `OutOfMemory` or `Adapter` where the plan cannot be built.
    pub fn step(&mut self, longest: usize) -> Result<()> {
        self.slots.step(self.options.slots, longest)
    }

    /// Submits `count` decode steps and the read-back of what they chose; `longest` is that of the first.
    pub(super) fn steps_and_read(&mut self, longest: usize, count: usize) -> Result<Pending> {
        self.slots.steps_and_read(self.options.slots, longest, count)
    }

    /// Submits the read-back of all slots' states as they are after what was submitted before.
    pub(super) fn read_state(&self) -> Result<Pending> {
        self.slots.read_state()
    }

    /// Decodes `steps` tokens of every slot that [`Self::extend`] has started, and returns each slot's: the token that
    /// `extend` chose, then `steps` more.
    ///
    /// # Errors
    /// `Shape` where a context would be full.
    pub async fn decode(&mut self, steps: usize) -> Result<Vec<Vec<u32>>> {
        self.decode_each(steps, |_| ()).await
    }

    /// [`Self::decode`], calling `arrived` with the number of steps whenever the tokens of some have been read back.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub async fn decode_each(&mut self, steps: usize, mut arrived: impl FnMut(usize)) -> Result<Vec<Vec<u32>>> {
        let longest = self.tokens.iter().map(Vec::len).max().unwrap_or(0);
        if longest + steps > self.context_length() {
            return Err(full(longest + steps, self.context_length()));
        }
        let mut arrivals = Arrivals::new(self.step_ms);
        arrivals.push(self.read_state()?, 1);
        let mut out = vec![Vec::new(); self.options.slots];
        let mut submitted = 0;
        loop {
            while submitted < steps {
                // One more: that which is awaited.
                let count = arrivals.room(self.options.ahead + 1).min(steps - submitted);
                if count == 0 {
                    break;
                }
                arrivals.push(self.steps_and_read(longest + submitted, count)?, count);
                submitted += count;
            }
            let Some(states) = arrivals.next(&mut arrived).await? else { break };
            self.step_ms = arrivals.step_ms();
            for (out, [token, ..]) in out.iter_mut().zip(states) {
                out.push(token);
            }
        }
        // All but the last token chosen have been fed.
        for (tokens, new) in self.tokens.iter_mut().zip(&out) {
            if !tokens.is_empty() {
                tokens.extend_from_slice(&new[..new.len() - 1]);
            }
        }
        Ok(out)
    }
}
