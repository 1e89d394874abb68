//! [`Session`]: the cache and the plans of one or more conversations with a model.

mod ahead;

use std::collections::HashMap;

use super::model::Model;
use super::options::{Sampling, SessionOptions};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Context, readback::Pending};
use crate::kernels::sample::HISTORY;
use crate::models::llama::plan::{Phase, Ports, State, chunk_rows, output_rows};
use crate::plan::{Builder, Plan};
use crate::profile::Profile;
use crate::tensor::{Storage, Tensor};

/// A plan with the tensors that the host writes.
pub(super) struct Ready {
    pub(super) plan: Plan,
    ports: Ports,
}

/// One or more conversations: their cache, the tokens in it, and the plans that extend it.
///
/// Every method takes `&mut self`: a session does one thing at a time; several sessions of a model run side by side.
pub struct Session {
    model: Model,
    options: SessionOptions,
    /// What kernels are chosen for.
    profile: Profile,
    state: State,
    plans: HashMap<Phase, Ready>,
    chunk: usize,
    /// The tokens whose keys and values are in the cache, a list a slot.
    pub(super) tokens: Vec<Vec<u32>>,
    prefilled: usize,
}

/// The bound of positions that a replay's grids are made for: few different ones, so that they could be cached.
fn bucket(context: usize) -> usize {
    context.next_multiple_of(256)
}

/// The buffer of a tensor that lives outside plans.
fn buffer(tensor: &Tensor) -> Result<&Buffer> {
    match tensor.storage() {
        Storage::Buffer(buffer) => Ok(buffer),
        Storage::Activation(_) => Err(Error::shape("state tensor: found an activation, expected a buffer")),
    }
}

impl Model {
    /// A session with its own cache.
    ///
    /// # Errors
    /// `OutOfMemory` where the cache does not fit; `Shape` for options out of range.
    pub fn session(&self, options: SessionOptions) -> Result<Session> {
        let config = self.config();
        if options.slots == 0 || options.chunk == 0 || options.ahead == 0 {
            return Err(Error::shape(format!("session options {options:?}: expected no 0 but for context_length")));
        }
        let longest = if options.context_length == 0 { config.context_length } else { options.context_length };
        let context = self.context();
        let mut profile = context.profile().clone();
        if options.plain {
            profile.features.f16 = false;
            profile.features.subgroups = false;
            profile.features.integer_dot = false;
            profile.cooperative_matrices.clear();
        }
        let state = self.llama().state(context, options.slots, longest)?;
        let chunk = chunk_rows(config, &profile, options.chunk);
        let tokens = vec![Vec::new(); options.slots];
        Ok(Session { model: self.clone(), options, profile, state, plans: HashMap::new(), chunk, tokens, prefilled: 0 })
    }
}

impl Session {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How it works.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Positions that a sequence can have.
    pub fn context_length(&self) -> usize {
        self.state.context_length
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

    pub(super) fn context(&self) -> &Context {
        self.model.context()
    }

    fn plan(&mut self, phase: Phase) -> Result<()> {
        if !self.plans.contains_key(&phase) {
            let context = self.model.context();
            let mut builder = Builder::new(context).clipped(&self.profile);
            let ports = self.model.llama().write(&mut builder, context, &self.state, phase)?;
            self.plans.insert(phase, Ready { plan: builder.finish()?, ports });
        }
        Ok(())
    }

    /// The plan of a phase, built at its first use.
    ///
    /// # Errors
    /// `OutOfMemory`, or `Adapter` where a shader is refused.
    pub fn prepare(&mut self, phase: Phase) -> Result<&Plan> {
        self.plan(phase)?;
        self.plans
            .get(&phase)
            .map(|ready| &ready.plan)
            .ok_or_else(|| Error::shape("plan: not found after it was built"))
    }

    /// Rows of a chunk's plan: few different ones, so that few plans are built.
    fn rows_for(&self, count: usize) -> usize {
        let rows = if count <= 8 { count } else { count.next_multiple_of(16).next_power_of_two() };
        rows.min(self.chunk)
    }

    fn check_slot(&self, slot: usize) -> Result<()> {
        match slot < self.options.slots {
            true => Ok(()),
            false => Err(Error::shape(format!("slot {slot}: expected one of {}", self.options.slots))),
        }
    }

    fn check_tokens(&self, slot: usize, tokens: &[u32]) -> Result<()> {
        self.check_slot(slot)?;
        let vocabulary = self.model.config().vocab_size;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::shape(format!("token {token}: expected less than the vocabulary's {vocabulary}")));
        }
        let (held, room) = (self.tokens[slot].len(), self.context_length());
        if held + tokens.len() > room {
            return Err(full(held + tokens.len(), room));
        }
        Ok(())
    }

    /// Submits one chunk of a slot's tokens; `outputs` of its last rows get logits, and a token where `sample`.
    fn submit_chunk(&mut self, slot: usize, tokens: &[u32], outputs: usize, sample: bool) -> Result<Phase> {
        let (start, rows) = (self.tokens[slot].len(), self.rows_for(tokens.len()));
        // Plans of all rows' logits have as many outputs as rows.
        let planned = if outputs > 1 { rows } else { outputs };
        let phase = Phase::Prefill { rows, outputs: planned, sample };
        self.plan(phase)?;
        let Ready { plan, ports } = &self.plans[&phase];
        let context = self.model.context();
        let mut words = Vec::with_capacity(4 * rows);
        for i in 0..rows {
            // Rows past the tokens compute something that nobody reads.
            let token = tokens.get(i).copied().unwrap_or(0);
            words.extend([token, slot as u32, (start + i) as u32, u32::from(i < tokens.len())]);
        }
        context.write(buffer(&ports.rows)?, 0, bytemuck::cast_slice(&words));
        if let Some(out_rows) = &ports.out_rows {
            let last = tokens.len() as u32 - 1;
            let chosen: Vec<u32> = if planned > 1 { (0..rows as u32).collect() } else { vec![last] };
            context.write(buffer(out_rows)?, 0, bytemuck::cast_slice(&chosen));
            context.write(buffer(&ports.slot_of)?, 0, bytemuck::cast_slice(&vec![slot as u32; planned]));
        }
        let mut encoder = context.encoder();
        plan.record(&mut encoder, bucket(start + tokens.len()));
        context.submit(encoder);
        self.tokens[slot].extend_from_slice(tokens);
        self.prefilled += tokens.len();
        Ok(phase)
    }

    /// Waits until the GPU has done what was submitted.
    ///
    /// # Errors
    /// What the device reported.
    pub async fn finish(&self) -> Result<()> {
        self.context().finish().await
    }

    /// Puts `tokens` behind those of a slot, without logits.
    ///
    /// # Errors
    /// `Shape` where a token is out of range or the context full.
    pub async fn prefill(&mut self, slot: usize, tokens: &[u32]) -> Result<()> {
        self.check_tokens(slot, tokens)?;
        for chunk in tokens.chunks(self.chunk) {
            self.submit_chunk(slot, chunk, 0, false)?;
            // One chunk at a time, so that dropping this future leaves at most one running.
            self.finish().await?;
        }
        Ok(())
    }

    /// Puts `tokens` behind those of a slot and returns the logits of the last one: `[vocabulary]`. The way to choose
    /// tokens on the host.
    ///
    /// # Errors
    /// `Shape` where there is no token, one is out of range, or the context is full.
    pub async fn forward(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>> {
        self.check_tokens(slot, tokens)?;
        let Some(last) = tokens.len().checked_sub(1).map(|n| n / self.chunk * self.chunk) else {
            return Err(Error::shape("forward: found no token, expected at least one"));
        };
        let (before, tail) = tokens.split_at(last);
        self.prefill(slot, before).await?;
        let phase = self.submit_chunk(slot, tail, 1, false)?;
        self.read_logits(phase, 1).await
    }

    /// Puts `tokens` behind those of a slot and returns the logits of all of them: `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub async fn forward_all(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>> {
        self.check_tokens(slot, tokens)?;
        let rows = output_rows(self.model.config(), &self.profile, self.chunk);
        // Whole plans of equal size: the largest power of two that fits.
        let rows = if rows.is_power_of_two() { rows } else { rows.next_power_of_two() / 2 };
        let mut logits = Vec::with_capacity(tokens.len() * self.model.config().vocab_size);
        for chunk in tokens.chunks(rows.max(1)) {
            // A single row would be planned as the last one of a chunk, which it is.
            let phase = self.submit_chunk(slot, chunk, chunk.len(), false)?;
            logits.extend(self.read_logits(phase, chunk.len()).await?);
        }
        Ok(logits)
    }

    async fn read_logits(&self, phase: Phase, rows: usize) -> Result<Vec<f32>> {
        let Ready { plan, ports } = &self.plans[&phase];
        let logits = ports.logits.as_ref().ok_or_else(|| Error::shape("logits: the plan has none"))?;
        let rows = logits.slice(0, rows).ok_or_else(|| Error::shape("logits: fewer rows than asked for"))?;
        let bytes = plan.read(&rows).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Sets how a slot's tokens are chosen, and where it stands: `position` is that of the next token to be fed.
    fn write_slot(&self, slot: usize, token: u32, position: usize, active: bool) -> Result<()> {
        let words = [token, slot as u32, position as u32, u32::from(active)];
        self.context().write(buffer(&self.state.sequences)?, 16 * slot as u64, bytemuck::cast_slice(&words));
        Ok(())
    }

    fn write_sampling(&self, slot: usize, sampling: &Sampling, tokens: &[u32]) -> Result<()> {
        let sampling = sampling.to_slot()?;
        let context = self.context();
        context.write(buffer(&self.state.sampling)?, 32 * slot as u64, bytemuck::bytes_of(&sampling));
        let mut history = vec![u32::MAX; HISTORY];
        for (position, &token) in tokens.iter().enumerate().rev().take(HISTORY) {
            history[position % HISTORY] = token;
        }
        let offset = (4 * HISTORY * slot) as u64;
        context.write(buffer(&self.state.history)?, offset, bytemuck::cast_slice(&history));
        Ok(())
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
        self.write_sampling(slot, sampling, tokens)?;
        let last = (rest.len() - 1) / self.chunk * self.chunk;
        self.prefill(slot, &rest[..last]).await?;
        // Sampling moves the position on to that of the token which it chooses.
        self.write_slot(slot, 0, tokens.len() - 1, true)?;
        self.submit_chunk(slot, &rest[last..], 1, true)?;
        Ok(())
    }

    /// Submits one decode step of all active slots; the newest position of any is `longest`.
    ///
    /// # Errors
    /// `Shape` where `longest` is past the context; `OutOfMemory` or `Adapter` where the plan cannot be built.
    pub fn step(&mut self, longest: usize) -> Result<()> {
        if longest >= self.context_length() {
            return Err(full(longest + 1, self.context_length()));
        }
        let phase = Phase::decode(longest);
        self.plan(phase)?;
        let context = self.model.context();
        let mut encoder = context.encoder();
        self.plans[&phase].plan.record(&mut encoder, bucket(longest + 1).min(self.state.context_length));
        context.submit(encoder);
        Ok(())
    }

    /// Submits one decode step and the read-back of what it chose.
    pub(super) fn step_and_read(&mut self, longest: usize) -> Result<Pending> {
        self.step(longest)?;
        self.read_state()
    }

    /// Submits the read-back of all slots' states as they are after what was submitted before.
    pub(super) fn read_state(&self) -> Result<Pending> {
        let context = self.context();
        let mut encoder = context.encoder();
        let sequences = &self.state.sequences;
        let readback = context.record_read(&mut encoder, buffer(sequences)?, 0, sequences.bytes());
        let submission = context.submit(encoder);
        Ok(readback.submitted(submission))
    }

    /// Decodes `steps` tokens of every slot that [`Self::extend`] has started, and returns each slot's: the token that
    /// `extend` chose, then `steps` more.
    ///
    /// # Errors
    /// `Shape` where a context would be full.
    pub async fn decode(&mut self, steps: usize) -> Result<Vec<Vec<u32>>> {
        self.decode_each(steps, || ()).await
    }

    /// [`Self::decode`], calling `arrived` whenever a step's tokens have been read back.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub async fn decode_each(&mut self, steps: usize, mut arrived: impl FnMut()) -> Result<Vec<Vec<u32>>> {
        let longest = self.tokens.iter().map(Vec::len).max().unwrap_or(0);
        if longest + steps > self.context_length() {
            return Err(full(longest + steps, self.context_length()));
        }
        let mut pending = std::collections::VecDeque::from([self.read_state()?]);
        let mut out = vec![Vec::new(); self.options.slots];
        let mut submitted = 0;
        while let Some(front) = pending.pop_front() {
            while submitted < steps && pending.len() < self.options.ahead {
                pending.push_back(self.step_and_read(longest + submitted)?);
                submitted += 1;
            }
            let states: Vec<[u32; 4]> = bytemuck::pod_collect_to_vec(&front.bytes().await?);
            for (out, [token, ..]) in out.iter_mut().zip(states) {
                out.push(token);
            }
            arrived();
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

/// A context that does not hold what is wanted.
pub(super) fn full(wanted: usize, room: usize) -> Error {
    Error::shape(format!("context is full: {wanted} tokens, expected at most {room}"))
}
