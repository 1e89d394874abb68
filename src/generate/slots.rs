//! [`Slots`]: the cache of some sequences on the GPU and the plans that extend it. What a [`Session`](super::Session) and a
//! [`Scheduler`](crate::scheduler::Scheduler) have in common: it knows slots and positions, not which tokens they hold.

use std::collections::HashMap;

use super::model::Model;
use super::options::Sampling;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Buffer, Context, readback::Pending};
use crate::kernels::sample::HISTORY;
use crate::models::llama::plan::{CHUNK, Phase, Ports, State, chunk_rows};
use crate::plan::memory::Scratch;
use crate::plan::{Builder, Plan};
use crate::profile::Profile;
use crate::tensor::{Storage, Tensor};

/// A plan with the tensors that the host writes.
struct Ready {
    plan: Plan,
    ports: Ports,
}

/// Steps of a chunk that are submitted first: soon encoded, and enough to do until more come.
const FEW_STEPS: usize = 8;
/// The same where a step is shorter than its encoding, and another submission only costs time.
const FEW_STEPS_OF_FEW_ROWS: usize = 32;
/// Steps of a chunk of more than [`CHUNK`] rows that are submitted at once.
const TOGETHER: usize = 64;

/// What [`Slots`] are made for.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Sequences side by side.
    pub slots: usize,
    /// Positions a sequence can have; 0: what the model was made for.
    pub context_length: usize,
    /// Pages of the cache; `None`: as many as all slots have positions for, each slot's its own.
    pub pages: Option<usize>,
    /// Tokens of a prefill chunk, at most; 0: what suits the device.
    pub chunk: usize,
    /// The same kernels at every position.
    pub deterministic: bool,
    /// No f16, subgroups, integer dot products or matrix units.
    pub plain: bool,
}

/// A cache, the states of its sequences, and the plans that extend them.
pub(crate) struct Slots {
    model: Model,
    deterministic: bool,
    /// What kernels are chosen for.
    profile: Profile,
    state: State,
    /// Plans by the number of slots that they serve, from the first on, and phase.
    plans: HashMap<(usize, Phase), Ready>,
    /// Activations of all plans but their logits: what one leaves there no other reads.
    scratch: Scratch,
    chunk: usize,
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

/// A sequence's state in the words that the GPU keeps of it.
pub(crate) type SlotState = [u32; 4];

/// The states of all slots out of a read-back: token, slot, position, active.
pub(crate) fn states(bytes: &[u8]) -> Vec<SlotState> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Rows of the plan for `count` tokens in chunks of `most`: few different ones, so that few plans are built.
fn rows_for(count: usize, most: usize) -> usize {
    let rows = if count <= 8 { count } else { count.next_multiple_of(16).next_power_of_two() };
    rows.min(most)
}

/// The chunks of at most `most` that `count` tokens are cut into. Where more than an eighth of a large plan's rows would be padding,
/// a smaller one comes first.
fn chunks(count: usize, most: usize) -> Vec<usize> {
    let mut chunks = Vec::new();
    let mut left = count;
    while left > 0 {
        let rows = rows_for(left, most);
        let padded = rows > CHUNK && left < rows - rows / 8;
        let chunk = if padded { rows.div_ceil(2).next_power_of_two() } else { left.min(rows) };
        chunks.push(chunk);
        left -= chunk;
    }
    chunks
}

impl Slots {
    /// # Errors
    /// `OutOfMemory` where the cache does not fit.
    pub fn new(model: &Model, layout: &Layout) -> Result<Self> {
        let (config, context) = (model.config(), model.context());
        let longest = if layout.context_length == 0 { config.context_length } else { layout.context_length };
        let mut profile = context.profile().clone();
        if layout.plain {
            profile.features.f16 = false;
            profile.features.subgroups = false;
            profile.features.integer_dot = false;
            profile.cooperative_matrices.clear();
        }
        let state = model.llama().state(context, layout.slots, longest, layout.pages)?;
        let chunk = chunk_rows(config, &profile, layout.chunk);
        let deterministic = layout.deterministic;
        Ok(Self {
            model: model.clone(),
            deterministic,
            profile,
            state,
            plans: HashMap::new(),
            scratch: Scratch::default(),
            chunk,
        })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn context(&self) -> &Context {
        self.model.context()
    }

    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.state.slots
    }

    /// Tokens of a prefill chunk, at most.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Positions that a sequence can have.
    pub fn context_length(&self) -> usize {
        self.state.context_length
    }

    /// The phase that decodes a token of each of the first `slots` slots, at position `longest` or before it.
    pub fn decode_phase(&self, slots: usize, longest: usize) -> Phase {
        match self.deterministic {
            true => Phase::Decode { sample: true, short: false },
            false => Phase::decode(self.model.config(), slots, longest),
        }
    }

    /// Builds the plan of a phase for the first `slots` slots, unless there is one.
    ///
    /// # Errors
    /// `OutOfMemory`, or `Adapter` where a shader is refused.
    pub fn prepare(&mut self, slots: usize, phase: Phase) -> Result<&Plan> {
        if !self.plans.contains_key(&(slots, phase)) {
            let context = self.model.context();
            let mut builder = Builder::new(context).clipped(&self.profile).sharing(&self.scratch);
            let ports = self.model.llama().write(&mut builder, context, &self.state.first(slots)?, phase)?;
            let plan = builder.finish();
            if self.scratch.take_outgrown() {
                // The others hold smaller buffers; whoever needs them has them made again.
                self.plans.clear();
            }
            self.plans.insert((slots, phase), Ready { plan: plan?, ports });
        }
        Ok(&self.ready(slots, phase)?.plan)
    }

    fn ready(&self, slots: usize, phase: Phase) -> Result<&Ready> {
        self.plans.get(&(slots, phase)).ok_or_else(|| Error::shape("plan: not found after it was built"))
    }

    /// Whether a phase of all slots has its plan.
    pub fn is_prepared(&self, phase: Phase) -> bool {
        self.plans.contains_key(&(self.count(), phase))
    }

    /// The steps of a phase of all slots, not yet a plan.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn written(&self, phase: Phase) -> Result<Builder> {
        let context = self.model.context();
        let mut builder = Builder::new(context).clipped(&self.profile);
        self.model.llama().write(&mut builder, context, &self.state, phase)?;
        Ok(builder)
    }

    /// [`Self::chunks`], the plan of the first of which there is: without memory for a large one prompts are cut into smaller ones
    /// from now on. The last chunk has `outputs` rows of logits, and a token where `sample`.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn cut(&mut self, count: usize, outputs: usize, sample: bool) -> Result<Vec<usize>> {
        let chunks = self.chunks(count);
        let Some(&first) = chunks.first().filter(|&&first| first > CHUNK) else { return Ok(chunks) };
        let phase = match chunks.len() {
            1 => Phase::Prefill { rows: self.rows_for(first), outputs, sample },
            _ => Phase::Prefill { rows: self.rows_for(first), outputs: 0, sample: false },
        };
        match self.prepare(self.count(), phase) {
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                self.chunk = CHUNK;
                Ok(self.chunks(count))
            }
            prepared => prepared.map(|_| chunks),
        }
    }

    /// The chunks that a prompt of `count` tokens is cut into.
    pub fn chunks(&self, count: usize) -> Vec<usize> {
        chunks(count, self.chunk)
    }

    /// Rows of a chunk's plan.
    pub fn rows_for(&self, count: usize) -> usize {
        rows_for(count, self.chunk)
    }

    /// An error unless the model has all of these tokens.
    ///
    /// # Errors
    /// `Shape`.
    pub fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocabulary = self.model.config().vocab_size;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(token) => {
                Err(Error::shape(format!("token {token}: expected less than the vocabulary's {vocabulary}")))
            }
            None => Ok(()),
        }
    }

    /// Submits one chunk of a slot's tokens, from position `start` on; `outputs` of its last rows get logits, and a token
    /// where `sample`.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn submit_chunk(
        &mut self,
        slot: usize,
        start: usize,
        tokens: &[u32],
        outputs: usize,
        sample: bool,
    ) -> Result<Phase> {
        let rows = self.rows_for(tokens.len());
        // Plans of all rows' logits have as many outputs as rows.
        let planned = if outputs > 1 { rows } else { outputs };
        let phase = Phase::Prefill { rows, outputs: planned, sample };
        self.prepare(self.count(), phase)?;
        let Ready { plan, ports } = self.ready(self.count(), phase)?;
        let context = self.context();
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
        let (first, most) = match rows {
            0..64 => (FEW_STEPS_OF_FEW_ROWS, usize::MAX),
            64..=CHUNK => (FEW_STEPS, usize::MAX),
            _ => (FEW_STEPS, TOGETHER),
        };
        plan.replay_early(bucket(start + tokens.len()), first, most);
        Ok(phase)
    }

    /// The first `rows` rows of logits that a chunk of this phase left.
    ///
    /// # Errors
    /// `Shape` where it left fewer, or what the device reported.
    pub async fn read_logits(&self, phase: Phase, rows: usize) -> Result<Vec<f32>> {
        let Ready { plan, ports } = self.ready(self.count(), phase)?;
        let logits = ports.logits.as_ref().ok_or_else(|| Error::shape("logits: the plan has none"))?;
        let rows = logits.slice(0, rows).ok_or_else(|| Error::shape("logits: fewer rows than asked for"))?;
        let bytes = plan.read(&rows).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Submits one decode step of the active ones among the first `slots` slots; the newest position of any is `longest`.
    ///
    /// # Errors
    /// `Shape` where `longest` is past the context; otherwise as [`Self::prepare`].
    pub fn step(&mut self, slots: usize, longest: usize) -> Result<()> {
        let room = self.context_length();
        if longest >= room {
            return Err(full(longest + 1, room));
        }
        let plan = self.prepare(slots, self.decode_phase(slots, longest))?;
        plan.replay(bucket(longest + 1).min(room));
        Ok(())
    }

    /// Submits `count` decode steps of the active ones among the first `slots` slots, and the read-back of all slots' states
    /// after each, together: a submission has a price of its own. The newest position of any is `longest`, then one more a step.
    ///
    /// # Errors
    /// As [`Self::step`]; nothing is submitted then.
    pub fn steps_and_read(&mut self, slots: usize, longest: usize, count: usize) -> Result<Pending> {
        let (context, room) = (self.context().clone(), self.context_length());
        let sequences = self.state.sequences.clone();
        let bytes = sequences.bytes();
        let readback = context.readback(bytes * count as u64);
        let mut encoder = context.encoder();
        for step in 0..count {
            let longest = longest + step;
            if longest >= room {
                return Err(full(longest + 1, room));
            }
            let plan = self.prepare(slots, self.decode_phase(slots, longest))?;
            plan.encode_all(&mut encoder, bucket(longest + 1).min(room));
            readback.copy(&mut encoder, buffer(&sequences)?, 0, step as u64 * bytes, bytes);
        }
        let submission = context.submit(encoder);
        Ok(readback.submitted(submission))
    }

    /// Submits the read-back of all slots' states as they are after what was submitted before.
    ///
    /// # Errors
    /// `Shape`, should the state lie in no buffer.
    pub fn read_state(&self) -> Result<Pending> {
        let context = self.context();
        let mut encoder = context.encoder();
        let sequences = &self.state.sequences;
        let readback = context.record_read(&mut encoder, buffer(sequences)?, 0, sequences.bytes());
        let submission = context.submit(encoder);
        Ok(readback.submitted(submission))
    }

    /// Sets where a slot stands: `position` is that of the next token to be fed.
    ///
    /// # Errors
    /// As [`Self::read_state`].
    pub fn write_slot(&self, slot: usize, token: u32, position: usize, active: bool) -> Result<()> {
        let words = [token, slot as u32, position as u32, u32::from(active)];
        self.context().write(buffer(&self.state.sequences)?, 16 * slot as u64, bytemuck::cast_slice(&words));
        Ok(())
    }

    /// Takes a slot out of the steps that follow; its token stays.
    ///
    /// # Errors
    /// As [`Self::read_state`].
    pub fn deactivate(&self, slot: usize) -> Result<()> {
        // Kernels look up the page of an inactive row's position too, which may be the one past the last.
        self.context().write(buffer(&self.state.sequences)?, 16 * slot as u64 + 8, &[0; 8]);
        Ok(())
    }

    /// Sets how a slot's tokens are chosen, `tokens` being those it has so far.
    ///
    /// # Errors
    /// `Shape` for settings out of range.
    pub fn write_sampling(&self, slot: usize, sampling: &Sampling, tokens: &[u32]) -> Result<()> {
        self.write_rules(slot, sampling)?;
        let mut history = vec![u32::MAX; HISTORY];
        for (position, &token) in tokens.iter().enumerate().rev().take(HISTORY) {
            history[position % HISTORY] = token;
        }
        let offset = (4 * HISTORY * slot) as u64;
        self.context().write(buffer(&self.state.history)?, offset, bytemuck::cast_slice(&history));
        Ok(())
    }

    /// [`Self::write_sampling`] for a slot whose tokens are there.
    ///
    /// # Errors
    /// `Shape` for settings out of range.
    pub fn write_rules(&self, slot: usize, sampling: &Sampling) -> Result<()> {
        let sampling = sampling.to_slot()?;
        self.context().write(buffer(&self.state.sampling)?, 32 * slot as u64, bytemuck::bytes_of(&sampling));
        Ok(())
    }

    /// Sets a slot's pages from its page `first` on.
    ///
    /// # Errors
    /// `Shape` where they are more than a slot has positions for.
    pub fn write_pages(&self, slot: usize, first: usize, pages: &[u32]) -> Result<()> {
        let table = &self.state.page_table;
        if slot >= table.rows() || first + pages.len() > table.cols() {
            let found = first + pages.len();
            return Err(Error::shape(format!("slot {slot}: {found} pages, expected at most {}", table.cols())));
        }
        let offset = 4 * (slot * table.cols() + first) as u64;
        self.context().write(buffer(table)?, offset, bytemuck::cast_slice(pages));
        Ok(())
    }

    /// Takes a sequence from one slot to another, in the order of submissions: its token, position and history; its pages
    /// and sampling are to be written there. The slot that it leaves is inactive.
    ///
    /// # Errors
    /// As [`Self::read_state`].
    pub fn relocate(&self, from: usize, to: usize) -> Result<()> {
        let (sequences, history) = (buffer(&self.state.sequences)?, buffer(&self.state.history)?);
        let (row, context) = (4 * HISTORY as u64, self.context());
        // Its own number is the word of the state that stays.
        context.copy_within(sequences, 16 * from as u64, 16 * to as u64, 4)?;
        context.copy_within(sequences, 16 * from as u64 + 8, 16 * to as u64 + 8, 8)?;
        context.copy_within(history, row * from as u64, row * to as u64, row)?;
        self.deactivate(from)
    }
}

/// A context that does not hold what is wanted.
pub(crate) fn full(wanted: usize, room: usize) -> Error {
    Error::shape(format!("context is full: {wanted} tokens, expected at most {room}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_cut_into_whole_plans() {
        for (count, most, expected) in [
            (0, 512, vec![]),
            (1, 512, vec![1]),
            (512, 512, vec![512]),
            (1_030, 512, vec![512, 512, 6]),
            (7, 4, vec![4, 3]),
            (512, 2_048, vec![512]),
            // Of 1024 rows 424 would be padding, and 124.
            (600, 2_048, vec![512, 88]),
            (900, 2_048, vec![900]),
            (1_600, 2_048, vec![1_024, 512, 64]),
            (1_900, 2_048, vec![1_900]),
            (4_700, 2_048, vec![2_048, 2_048, 512, 92]),
            (700, 700, vec![700]),
            (520, 700, vec![512, 8]),
        ] {
            let found = chunks(count, most);
            assert_eq!(found, expected, "{count} in chunks of {most}");
            assert_eq!(found.iter().sum::<usize>(), count);
        }
    }
}
