//! The model as plans: one for prefill of a chunk of tokens, one for decode of a token of each sequence.

use super::config::Config;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Context};
use crate::kernels::add_bias::AddBias;
use crate::kernels::attention::Attention;
use crate::kernels::attention_decode::{AttentionDecode, Output, short, splits};
use crate::kernels::attention_merge::AttentionMerge;
use crate::kernels::attention_prefill::AttentionPrefill;
use crate::kernels::cache::{CacheShape, Heads, PAGE, Shard};
use crate::kernels::embed::Embed;
use crate::kernels::matmul::cooperative;
use crate::kernels::matvec::MAX_COLUMNS;
use crate::kernels::normed::Normed;
use crate::kernels::q8::{Activations, BLOCK};
use crate::kernels::rms_norm::RmsNorm;
use crate::kernels::rope_cache::RopeCache;
use crate::kernels::sample::{HISTORY, Sample};
use crate::models::linear::{Norm, gated, input, linear, residual_and_norm};
use crate::models::weights::{Group, Loader, Matrix, Progress, Weights, matrix_bytes, upload_words};
use crate::plan::Builder;
use crate::profile::Profile;
use crate::tensor::{Storage, Tensor};

/// A block's weights on the GPU.
#[derive(Debug)]
struct Layer {
    attn_norm: Tensor,
    qkv: Group,
    /// `(column of qkv, bias)`.
    qkv_biases: Vec<(usize, Tensor)>,
    attn_output: Group,
    output_bias: Option<Tensor>,
    ffn_norm: Tensor,
    gate_up: Group,
    down: Group,
}

/// A model's weights on the GPU.
#[derive(Debug)]
pub struct Llama {
    config: Config,
    embedding: Matrix,
    layers: Vec<Layer>,
    output_norm: Tensor,
    output: Group,
    frequencies: (Vec<f32>, f32),
}

/// What a session keeps on the GPU between replays. Clones share it.
#[derive(Clone, Debug)]
pub struct State {
    /// Sequences that can run side by side.
    pub slots: usize,
    /// Positions a sequence can have, a multiple of [`PAGE`].
    pub context_length: usize,
    caches: Vec<Vec<Shard>>,
    rope: Tensor,
    /// `[slots, context_length / PAGE]`: each slot's pages. An entry is a page of the cache even where no position is.
    pub page_table: Tensor,
    /// `[slots, 4]`: token, slot, position, active.
    pub sequences: Tensor,
    /// `[slots, 8]`: a `SlotSampling` each.
    pub sampling: Tensor,
    /// `[slots, HISTORY]`.
    pub history: Tensor,
    /// `[slots]`: the slot of each row of decode's logits: itself.
    identity: Tensor,
}

impl State {
    /// The same state for plans of the first `slots` slots.
    ///
    /// # Errors
    /// `Shape` where there are fewer.
    pub fn first(&self, slots: usize) -> Result<Self> {
        let first = |tensor: &Tensor| {
            let missing = || Error::shape(format!("{slots} slots: expected at most {}", self.slots));
            tensor.slice(0, slots).ok_or_else(missing)
        };
        Ok(Self {
            slots,
            page_table: first(&self.page_table)?,
            sequences: first(&self.sequences)?,
            sampling: first(&self.sampling)?,
            history: first(&self.history)?,
            identity: first(&self.identity)?,
            ..self.clone()
        })
    }
}

/// What a plan computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Tokens of one sequence; `outputs` of the rows get logits, `sample` chooses a token from each.
    Prefill {
        /// Rows of the plan; rows past the tokens are marked inactive.
        rows: usize,
        /// Rows that get logits.
        outputs: usize,
        /// Whether the slots of the outputs get their next token.
        sample: bool,
    },
    /// The next token of every active sequence.
    Decode {
        /// Whether the token is chosen on the GPU, or logits are all that is wanted.
        sample: bool,
        /// Whether all positions are below [`short`]: attention then takes one step less.
        short: bool,
    },
}

impl Phase {
    /// Decode with sampling of `rows` sequences for positions up to `longest`.
    pub fn decode(config: &Config, rows: usize, longest: usize) -> Self {
        Phase::Decode { sample: true, short: longest < short(rows, config.n_kv_heads) }
    }
}

/// A plan's tensors that the host writes and reads.
#[derive(Debug)]
pub struct Ports {
    /// `[M, 4]`: token, slot, position, active; of decode, the state's sequences.
    pub rows: Tensor,
    /// `[R]`: the row of each output (prefill).
    pub out_rows: Option<Tensor>,
    /// `[R]`: the slot of each output.
    pub slot_of: Tensor,
    /// `[R, vocabulary]`; `None` where no output is wanted.
    pub logits: Option<Tensor>,
}

impl Llama {
    /// Loads the weights.
    ///
    /// # Errors
    /// `OutOfMemory`, or what reading gives.
    pub async fn load(
        context: &Context,
        config: Config,
        weights: Weights,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let synthetic = matches!(weights, Weights::Synthetic(_));
        let mut loader = Loader::new(context, weights, progress);
        let (d, q, kv, ff) = (config.d_model, config.q_dim(), config.kv_dim(), config.d_ff);
        let factors = match config.rope.has_factors {
            true => loader.values("rope_freqs.weight", config.rope.dim / 2).await?,
            false => None,
        };
        let embedding = loader.single("token_embd.weight", config.vocab_size, d).await?;
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            let name = |part: &str| format!("blk.{i}.{part}");
            let w = |part: &str, rows: usize| (format!("blk.{i}.{part}.weight"), rows);
            let mut qkv_biases = Vec::new();
            let mut at = 0;
            for (part, has, len) in
                [("attn_q", config.biases.q, q), ("attn_k", config.biases.k, kv), ("attn_v", config.biases.v, kv)]
            {
                if has && !synthetic {
                    qkv_biases.push((at, loader.vector(&name(&format!("{part}.bias")), len).await?));
                }
                at += len;
            }
            layers.push(Layer {
                attn_norm: loader.vector(&name("attn_norm.weight"), d).await?,
                qkv: loader.group(&[w("attn_q", q), w("attn_k", kv), w("attn_v", kv)], d).await?,
                qkv_biases,
                attn_output: loader.group(&[w("attn_output", d)], q).await?,
                output_bias: match config.biases.output {
                    true => Some(loader.vector(&name("attn_output.bias"), d).await?),
                    false => None,
                },
                ffn_norm: loader.vector(&name("ffn_norm.weight"), d).await?,
                gate_up: loader.group(&[w("ffn_gate", ff), w("ffn_up", ff)], d).await?,
                down: loader.group(&[w("ffn_down", d)], ff).await?,
            });
        }
        let output_norm = loader.vector("output_norm.weight", d).await?;
        let output = if config.tied_output {
            vec![(0, embedding.clone())]
        } else {
            loader.group(&[("output.weight".to_owned(), config.vocab_size)], d).await?
        };
        context.finish().await?;
        let frequencies = config.rope_frequencies(factors.as_deref());
        Ok(Self { config, embedding, layers, output_norm, output, frequencies })
    }

    /// The model's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn heads(&self) -> Heads {
        heads(&self.config)
    }

    /// A session's state for `slots` sequences of up to `context_length` positions, rounded up to whole pages. Every slot has
    /// pages of its own, unless `pages` says how many there are for whoever writes the page table.
    ///
    /// # Errors
    /// `OutOfMemory` where the cache does not fit, or one head of it is more than the device binds.
    pub fn state(&self, context: &Context, slots: usize, context_length: usize, pages: Option<usize>) -> Result<State> {
        let heads = self.heads();
        let pages_per_slot = context_length.div_ceil(PAGE).max(1);
        let context_length = pages_per_slot * PAGE;
        let pages = pages.unwrap_or(slots * pages_per_slot).max(1);
        let per_shard = kv_heads_per_shard(&self.config, pages, context.profile())?;
        let mut caches = Vec::with_capacity(self.config.n_layers);
        for layer in 0..self.config.n_layers {
            let mut shards = Vec::new();
            for kv_start in (0..heads.kv_heads).step_by(per_shard) {
                let count = per_shard.min(heads.kv_heads - kv_start);
                let words = CacheShape { pages, heads: count, head_dim: heads.head_dim }.words();
                let bytes = 4 * words.iter().product::<usize>() as u64;
                let buffer = |part: &str, bytes| context.buffer(&format!("blk.{layer}.{part}_cache"), bytes);
                let cache = |buffer: &Buffer, at| Tensor::new(Storage::Buffer(buffer.clone()), at, DType::U32, words);
                // Side by side where a buffer holds both: a browser's price of a dispatch grows with the buffers that it binds.
                let align = u64::from(context.profile().limits.min_storage_offset_alignment);
                let both = 2 * bytes <= context.profile().limits.max_buffer_bytes && bytes.is_multiple_of(align);
                let (k, v) = match both {
                    true => {
                        let buffer = buffer("kv", 2 * bytes)?;
                        (cache(&buffer, 0), cache(&buffer, bytes))
                    }
                    false => (cache(&buffer("k", bytes)?, 0), cache(&buffer("v", bytes)?, 0)),
                };
                shards.push(Shard { k, v, kv_start });
            }
            caches.push(shards);
        }
        let table = rope_table(&self.frequencies, context_length);
        let shape = [table.len() / self.frequencies.0.len() / 2, self.frequencies.0.len(), 2];
        let identity: Vec<u32> = (0..slots as u32).collect();
        let page_table: Vec<u32> = (0..slots * pages_per_slot).map(|entry| (entry % pages) as u32).collect();
        // Kernels that turn by positions look up pages too: one buffer for both.
        let align = context.profile().limits.min_storage_offset_alignment.max(16) as usize / 4;
        let at = page_table.len().next_multiple_of(align);
        let mut words = page_table;
        words.resize(at, 0);
        words.extend(table.iter().map(|value| value.to_bits()));
        let tables = Storage::Buffer(context.buffer_from("page_table and rope", bytemuck::cast_slice(&words))?);
        let page_table = Tensor::new(tables.clone(), 0, DType::U32, [slots, pages_per_slot]);
        let rope = Tensor::new(tables, 4 * at as u64, DType::F32, shape);
        let sequences: Vec<u32> = identity.iter().flat_map(|&slot| [0, slot, 0, 0]).collect();
        Ok(State {
            slots,
            context_length,
            caches,
            rope,
            page_table,
            sequences: upload_words(context, "sequences", &sequences, [slots, 4])?,
            sampling: upload_words(context, "sampling", &vec![0; slots * 8], [slots, 8])?,
            history: upload_words(context, "history", &vec![0; slots * HISTORY], [slots, HISTORY])?,
            identity: upload_words(context, "identity", &identity, [slots])?,
        })
    }

    /// Writes the steps of a phase.
    ///
    /// # Errors
    /// `Shape` or `OutOfMemory` where an activation is beyond the device's limits.
    pub fn write(&self, builder: &mut Builder, context: &Context, state: &State, phase: Phase) -> Result<Ports> {
        let config = &self.config;
        let (heads, d) = (self.heads(), config.d_model);
        let (rows, m, outputs, sample, prefill, short) = match phase {
            Phase::Prefill { rows, outputs, sample } => {
                let buffer = upload_words(context, "rows", &vec![0; rows * 4], [rows, 4])?;
                (buffer, rows, outputs, sample, true, false)
            }
            Phase::Decode { sample, short } => {
                (state.sequences.clone(), state.slots, state.slots, sample, false, short)
            }
        };
        let x = builder.activation(DType::F32, [m, d]);
        for (first, part) in &self.embedding.parts {
            builder.step("token_embd", Embed { w: part.clone(), first: *first, ids: rows.clone(), y: x.clone() })?;
        }
        let mut normed = match self.layers.first() {
            Some(layer) => {
                let normed = input(builder, m, d, layer.qkv.iter().map(|(_, matrix)| matrix));
                builder.step("blk.0/attn_norm", self.norm(&x, &layer.attn_norm, &normed))?;
                Normed::from(normed)
            }
            None => Normed::from(Activations::F32(x.clone())),
        };
        for (i, (layer, shards)) in self.layers.iter().zip(&state.caches).enumerate() {
            let label = |part: &str| format!("blk.{i}/{part}");
            let qkv = builder.activation(DType::F32, [m, heads.qkv_cols()]);
            linear(builder, &label("attn_qkv"), &layer.qkv, &normed, &qkv, false)?;
            for (y_offset, bias) in &layer.qkv_biases {
                let kernel = AddBias { bias: bias.clone(), y: qkv.clone(), y_offset: *y_offset };
                builder.step(label("attn_qkv_bias"), kernel)?;
            }
            let attended = match prefill && m > 1 {
                true => self.attention_prefill(builder, &label, layer, shards, &qkv, &rows, state)?,
                false => self.attention_decode(builder, &label, layer, shards, &qkv, &rows, state, short)?,
            };
            let norm = |weight| Norm { weight, eps: config.rms_eps };
            let normed_ff = residual_and_norm(
                builder,
                &label("attn_output"),
                &layer.attn_output,
                attended,
                layer.output_bias.as_ref(),
                &x,
                norm(&layer.ffn_norm),
                layer.gate_up.iter().map(|(_, matrix)| matrix),
            )?;
            let next_down = layer.down.iter().map(|(_, matrix)| matrix);
            let hidden = gated(builder, &label("ffn_gate_up"), &layer.gate_up, &normed_ff, config.d_ff, next_down)?;
            normed = match self.layers.get(i + 1) {
                Some(next) => residual_and_norm(
                    builder,
                    &label("ffn_down"),
                    &layer.down,
                    hidden,
                    None,
                    &x,
                    norm(&next.attn_norm),
                    next.qkv.iter().map(|(_, matrix)| matrix),
                )?,
                // Only the rows asked for go on from here in prefill.
                None if prefill => {
                    linear(builder, &label("ffn_down"), &layer.down, &hidden.into(), &x, true)?;
                    Normed::from(Activations::F32(x.clone()))
                }
                None => residual_and_norm(
                    builder,
                    &label("ffn_down"),
                    &layer.down,
                    hidden,
                    None,
                    &x,
                    norm(&self.output_norm),
                    self.output.iter().map(|(_, matrix)| matrix),
                )?,
            };
        }
        let slot_of = match phase {
            Phase::Prefill { outputs, .. } => {
                upload_words(context, "slot_of", &vec![0; outputs.max(1)], [outputs.max(1)])?
            }
            Phase::Decode { .. } => state.identity.clone(),
        };
        if outputs == 0 {
            return Ok(Ports { rows, out_rows: None, slot_of, logits: None });
        }
        // Only the rows asked for go through the largest matrix.
        let (normed, out_rows) = if prefill {
            let out_rows = upload_words(context, "out_rows", &vec![0; outputs], [outputs, 1])?;
            let chosen = builder.activation(DType::F32, [outputs, d]);
            // Rows of an activation by number are a lookup in a table of f32.
            builder.step("output_rows", Embed { w: x, first: 0, ids: out_rows.clone(), y: chosen.clone() })?;
            let normed = input(builder, outputs, d, self.output.iter().map(|(_, matrix)| matrix));
            builder.step("output_norm", self.norm(&chosen, &self.output_norm, &normed))?;
            (normed.into(), Some(out_rows))
        } else {
            (normed, None)
        };
        let logits = builder.activation(DType::F32, [outputs, config.vocab_size]);
        linear(builder, "output", &self.output, &normed, &logits, false)?;
        if sample {
            builder.step(
                "sample",
                Sample {
                    slot_of: slot_of.clone(),
                    first: 0,
                    sampling: state.sampling.clone(),
                    logits: logits.clone(),
                    slots: state.sequences.clone(),
                    history: state.history.clone(),
                },
            )?;
        }
        builder.keep(&logits);
        Ok(Ports { rows, out_rows, slot_of, logits: Some(logits) })
    }

    fn norm(&self, x: &Tensor, weight: &Tensor, y: &Activations) -> RmsNorm {
        RmsNorm { x: x.clone(), weight: weight.clone(), y: y.clone(), eps: self.config.rms_eps }
    }

    fn attention_of(&self, shard: &Shard, qkv: &Tensor, rows: &Tensor, state: &State) -> Attention {
        let heads = self.heads();
        Attention {
            qkv: qkv.clone(),
            rows: rows.clone(),
            page_table: state.page_table.clone(),
            shard: shard.clone(),
            heads,
            scale: 1.0 / (heads.head_dim as f32).sqrt(),
        }
    }

    /// Of rows that may be of one sequence: all keys are in the cache before any row attends to them.
    fn attention_prefill(
        &self,
        builder: &mut Builder,
        label: &dyn Fn(&str) -> String,
        layer: &Layer,
        shards: &[Shard],
        qkv: &Tensor,
        rows: &Tensor,
        state: &State,
    ) -> Result<Activations> {
        let (heads, m) = (self.heads(), rows.rows());
        for (index, shard) in shards.iter().enumerate() {
            let kernel = RopeCache {
                qkv: qkv.clone(),
                rows: rows.clone(),
                rope: state.rope.clone(),
                page_table: state.page_table.clone(),
                shard: shard.clone(),
                heads,
                pairing: self.config.rope.pairing,
                turn_queries: index == 0,
            };
            builder.step(label("rope_cache"), kernel)?;
        }
        let next = layer.attn_output.iter().map(|(_, matrix)| matrix);
        // Few rows of a prompt stay floats: they are not worth a variant that quantises. So do heads that are no whole blocks.
        let y = match m > MAX_COLUMNS && heads.head_dim.is_multiple_of(BLOCK) {
            true => input(builder, m, heads.heads * heads.head_dim, next),
            false => Activations::F32(builder.activation(DType::F32, [m, heads.heads * heads.head_dim])),
        };
        for shard in shards {
            let attention = self.attention_of(shard, qkv, rows, state);
            builder.step(label("attention"), AttentionPrefill { attention, y: y.clone(), f16: true })?;
        }
        Ok(y)
    }

    /// Of rows that are each the next of their sequence.
    fn attention_decode(
        &self,
        builder: &mut Builder,
        label: &dyn Fn(&str) -> String,
        layer: &Layer,
        shards: &[Shard],
        qkv: &Tensor,
        rows: &Tensor,
        state: &State,
        short: bool,
    ) -> Result<Activations> {
        let (heads, m) = (self.heads(), rows.rows());
        let count = splits(state.context_length, m, heads.kv_heads);
        let whole = (short || count == 1) && heads.head_dim.is_multiple_of(BLOCK);
        let y = input(builder, m, heads.heads * heads.head_dim, layer.attn_output.iter().map(|(_, matrix)| matrix));
        let output = match whole {
            true => Output::Whole(y.clone()),
            false => {
                let shape = [m, heads.heads, count, heads.head_dim + 2];
                Output::Partial(builder.activation(DType::F32, shape))
            }
        };
        for shard in shards {
            let kernel = AttentionDecode {
                attention: self.attention_of(shard, qkv, rows, state),
                rope: state.rope.clone(),
                pairing: self.config.rope.pairing,
                output: output.clone(),
            };
            builder.step(label("attention"), kernel)?;
        }
        if let Output::Partial(partial) = output {
            builder.step(label("attention"), AttentionMerge { partial, rows: rows.clone(), y: y.clone() })?;
        }
        Ok(y)
    }
}

fn heads(config: &Config) -> Heads {
    Heads { heads: config.n_heads, kv_heads: config.n_kv_heads, head_dim: config.head_dim }
}

/// KV heads of a layer whose keys one buffer and one binding hold.
fn kv_heads_per_shard(config: &Config, pages: usize, profile: &Profile) -> Result<usize> {
    let head = pages as u64 * (PAGE * config.head_dim * 2) as u64;
    let limit = profile.limits.max_binding_bytes.min(profile.limits.max_buffer_bytes);
    match (limit / head) as usize {
        0 => Err(Error::out_of_memory(format!(
            "cache of one head, {} positions: {head} bytes, expected at most {limit} to bind",
            pages * PAGE
        ))),
        count => Ok(count.min(config.n_kv_heads)),
    }
}

/// Tokens of a prefill chunk of a usual size.
pub const CHUNK: usize = 512;
/// The same where matrix units are so fast that 512 rows leave them without work between two steps.
const LARGE_CHUNK: usize = 2048;

/// Tokens of a prefill chunk, at most: as many as `wanted`, or what suits the device where that is 0; fewer where activations would
/// be larger than a binding.
pub fn chunk_rows(config: &Config, profile: &Profile, wanted: usize) -> usize {
    let widest = (2 * config.d_ff).max(heads(config).qkv_cols()).max(config.d_model) as u64 * 4;
    let fits = (profile.limits.max_binding_bytes / widest) as usize;
    let wanted = match wanted {
        // Not with matrices of 8, which CPUs that play a GPU have.
        0 if cooperative(profile).is_some_and(|(side, _)| side == 16) => LARGE_CHUNK,
        0 => CHUNK,
        wanted => wanted,
    };
    wanted.min(fits).max(1)
}

/// Rows of logits that one activation holds.
pub fn output_rows(config: &Config, profile: &Profile, wanted: usize) -> usize {
    let fits = (profile.limits.max_binding_bytes / (4 * config.vocab_size as u64)) as usize;
    wanted.min(fits).max(1)
}

/// Bytes on the GPU of a model and of a session, before anything is allocated: weights and cache.
///
/// # Errors
/// `OutOfMemory` where a row or a head is more than the device binds.
pub fn memory_bytes(
    config: &Config,
    dtype_of: impl Fn(&str) -> DType,
    slots: usize,
    context_length: usize,
    profile: &Profile,
) -> Result<(u64, u64)> {
    let mut weights = 0;
    for expected in config.tensors() {
        weights += match expected.shape[..] {
            [rows, cols] => matrix_bytes(dtype_of(&expected.name), rows as usize, cols as usize, profile)?,
            _ => 4 * expected.shape.iter().product::<u64>(),
        };
    }
    let pages = slots * context_length.div_ceil(PAGE).max(1);
    kv_heads_per_shard(config, pages, profile)?;
    let cache = 2 * config.n_layers as u64 * config.kv_dim() as u64 * pages as u64 * PAGE as u64 * 2;
    Ok((weights, cache))
}

/// (cos, sin) for positions 0 to 255, times the magnitude, then for multiples of 256: the product of two entries is that
/// of any position, exact to f32 where a GPU's own sine of a large angle is not.
pub(super) fn rope_table((frequencies, magnitude): &(Vec<f32>, f32), context_length: usize) -> Vec<f32> {
    let mut table = Vec::new();
    let mut push = |position: usize, scale: f64| {
        for &frequency in frequencies {
            let (sin, cos) = (position as f64 * f64::from(frequency)).sin_cos();
            table.extend([(cos * scale) as f32, (sin * scale) as f32]);
        }
    };
    (0..256).for_each(|low| push(low, f64::from(*magnitude)));
    (0..context_length.div_ceil(256)).for_each(|high| push(256 * high, 1.0));
    table
}

#[cfg(test)]
mod tests;
