//! The model in plain Rust on the CPU: what plans are held against. It shares no code with them but the configuration
//! and the dequantisation, computes in f64, and is written to be read: `Weights`, `State` and one
//! [`Reference::forward`].

use half::f16;

use crate::error::{Error, Result};
use crate::format::gguf::Gguf;
use crate::models::llama::Config;
use crate::quant;
use crate::rope::Pairing;

/// A matrix `[rows, cols]`, dequantised.
struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }
}

/// `y = x · weightᵀ + bias`.
struct Linear {
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

struct Layer {
    attn_norm: Vec<f32>,
    attn_q: Linear,
    attn_k: Linear,
    attn_v: Linear,
    attn_output: Linear,
    ffn_norm: Vec<f32>,
    ffn_gate: Linear,
    ffn_up: Linear,
    ffn_down: Linear,
}

/// The file's tensors as f32.
struct Weights {
    token_embd: Matrix,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    /// `None`: the embedding matrix.
    output: Option<Linear>,
    /// Radians per position, `[rope.dim / 2]`, and the magnitude.
    rope: (Vec<f32>, f32),
}

/// What a conversation has computed so far.
struct State {
    /// Tokens in the cache.
    position: usize,
    /// Keys of each layer, turned by their position: `[position, n_kv_heads * head_dim]`.
    keys: Vec<Vec<f64>>,
    /// Values of each layer: `[position, n_kv_heads * head_dim]`.
    values: Vec<Vec<f64>>,
}

/// A `llama` model on the CPU with one conversation's cache.
pub struct Reference {
    config: Config,
    weights: Weights,
    state: State,
    round_cache_to_f16: bool,
}

impl Reference {
    /// Loads a file, all weights dequantised to f32: it takes 4 bytes a parameter.
    ///
    /// # Errors
    /// Those of [`Config::from_metadata`] and [`Config::check_tensors`]; `Io` where reading fails.
    pub async fn load(gguf: &Gguf) -> Result<Self> {
        let config = Config::from_metadata(gguf.metadata(), |name| Some(gguf.tensor(name)?.shape.clone()))?;
        config.check_tensors(gguf.tensors().iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())))?;
        let weights = Weights::load(&config, &Loader { gguf }).await?;
        let state = State::new(&config);
        Ok(Self { config, weights, state, round_cache_to_f16: false })
    }

    /// Whether keys and values are rounded to f16 as they enter the cache, as on the GPU. Off unless asked for.
    #[must_use]
    pub fn round_cache_to_f16(mut self, on: bool) -> Self {
        self.round_cache_to_f16 = on;
        self
    }

    /// The model's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tokens in the cache.
    pub fn position(&self) -> usize {
        self.state.position
    }

    /// Empties the cache.
    pub fn reset(&mut self) {
        self.state = State::new(&self.config);
    }

    /// Appends `tokens` to the cache and returns the logits after each, `[tokens, vocab_size]`. How a text is split into
    /// calls makes no difference, to the bit.
    ///
    /// # Errors
    /// `Shape` for a token id out of range and for more tokens than the context has room for; the cache is unchanged.
    pub fn forward(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let Self { config, weights, state, round_cache_to_f16 } = self;
        check(config, state, tokens)?;
        let first = state.position;

        let mut x: Vec<f64> =
            tokens.iter().flat_map(|&token| weights.token_embd.row(token as usize)).map(|&v| f64::from(v)).collect();
        for (layer, (keys, values)) in weights.layers.iter().zip(state.keys.iter_mut().zip(&mut state.values)) {
            let h = rms_norm(&x, &layer.attn_norm, config.rms_eps);
            let mut q = linear(&h, &layer.attn_q);
            let mut k = linear(&h, &layer.attn_k);
            let mut v = linear(&h, &layer.attn_v);
            rope(&mut q, first, config.n_heads, config, &weights.rope);
            rope(&mut k, first, config.n_kv_heads, config, &weights.rope);
            if *round_cache_to_f16 {
                round_to_f16(&mut k);
                round_to_f16(&mut v);
            }
            keys.append(&mut k);
            values.append(&mut v);
            add(&mut x, &linear(&attention(&q, keys, values, first, config), &layer.attn_output));

            let h = rms_norm(&x, &layer.ffn_norm, config.rms_eps);
            let gated = swiglu(&linear(&h, &layer.ffn_gate), &linear(&h, &layer.ffn_up));
            add(&mut x, &linear(&gated, &layer.ffn_down));
        }
        state.position += tokens.len();

        let h = rms_norm(&x, &weights.output_norm, config.rms_eps);
        let logits = match &weights.output {
            Some(output) => linear(&h, output),
            None => matmul(&h, &weights.token_embd),
        };
        Ok(logits.into_iter().map(|logit| logit as f32).collect())
    }

    /// Appends `prompt` and then `n_gen` tokens, each the likeliest (of equals, the lowest id). Returns those; the last
    /// one is not in the cache.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), and `Shape` for an empty prompt.
    pub fn generate_greedy(&mut self, prompt: &[u32], n_gen: usize) -> Result<Vec<u32>> {
        if prompt.is_empty() {
            return Err(Error::shape("prompt: found no tokens, expected at least one"));
        }
        let mut generated = Vec::new();
        let mut logits = self.forward(prompt)?;
        while generated.len() < n_gen {
            let last = &logits[logits.len() - self.config.vocab_size..];
            let token = argmax(last);
            generated.push(token);
            if generated.len() < n_gen {
                logits = self.forward(&[token])?;
            }
        }
        Ok(generated)
    }
}

/// The index of the largest value; of equals, the lowest. NaN is never the largest.
fn argmax(values: &[f32]) -> u32 {
    let mut best = 0;
    for (index, &value) in values.iter().enumerate() {
        if value > values[best] || (values[best].is_nan() && !value.is_nan()) {
            best = index;
        }
    }
    best as u32
}

fn check(config: &Config, state: &State, tokens: &[u32]) -> Result<()> {
    if let Some((index, &token)) = tokens.iter().enumerate().find(|&(_, &token)| token as usize >= config.vocab_size) {
        return Err(Error::shape(format!("token {index}: found id {token}, expected one below {}", config.vocab_size)));
    }
    let room = config.context_length - state.position;
    if tokens.len() > room {
        return Err(Error::shape(format!(
            "{} tokens after {}: expected at most {room} more in a context of {}",
            tokens.len(),
            state.position,
            config.context_length
        )));
    }
    Ok(())
}

/// `x / sqrt(mean(x²) + eps) · weight` of every row of `x[tokens, d_model]`.
fn rms_norm(x: &[f64], weight: &[f32], eps: f32) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let mean_square = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean_square + f64::from(eps)).sqrt();
        y.extend(row.iter().zip(weight).map(|(v, &w)| v * scale * f64::from(w)));
    }
    y
}

/// `y[tokens, rows] = x[tokens, cols] · weight[rows, cols]ᵀ + bias[rows]`.
fn linear(x: &[f64], linear: &Linear) -> Vec<f64> {
    let mut y = matmul(x, &linear.weight);
    if let Some(bias) = &linear.bias {
        for row in y.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, &bias)| *y += f64::from(bias));
        }
    }
    y
}

/// `y[tokens, rows] = x[tokens, cols] · w[rows, cols]ᵀ`.
fn matmul(x: &[f64], w: &Matrix) -> Vec<f64> {
    let tokens = x.len() / w.cols;
    // Row by row of `w`, so that it is read once and rows can be shared out; turned around at the end.
    let mut transposed = vec![0.0; w.rows * tokens];
    let rows_from = |first_row: usize, part: &mut [f64]| {
        for (row, y) in part.chunks_exact_mut(tokens).enumerate() {
            let weights = w.row(first_row + row);
            y.iter_mut().zip(x.chunks_exact(w.cols)).for_each(|(y, x)| *y = dot(x, weights));
        }
    };
    let workers = workers(w.rows * w.cols * tokens);
    if workers == 1 || tokens == 0 {
        if tokens > 0 {
            rows_from(0, &mut transposed);
        }
    } else {
        let rows = w.rows.div_ceil(workers);
        std::thread::scope(|scope| {
            for (index, part) in transposed.chunks_mut(rows * tokens).enumerate() {
                scope.spawn(move || rows_from(index * rows, part));
            }
        });
    }
    (0..tokens).flat_map(|token| (0..w.rows).map(move |row| row * tokens + token)).map(|i| transposed[i]).collect()
}

/// How many threads are worth starting for so many products. The browser has none to start.
fn workers(products: usize) -> usize {
    const PRODUCTS_A_THREAD: usize = 1 << 18;
    if cfg!(target_arch = "wasm32") {
        return 1;
    }
    let available = std::thread::available_parallelism().map_or(1, |count| count.get());
    available.min(products / PRODUCTS_A_THREAD).max(1)
}

/// `Σ x·w` in f64, in eight sums that a compiler can put into vectors.
fn dot(x: &[f64], w: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (xs, ws) = (x.chunks_exact(8), w.chunks_exact(8));
    let rest: f64 = xs.remainder().iter().zip(ws.remainder()).map(|(x, &w)| x * f64::from(w)).sum();
    for (x, w) in xs.zip(ws) {
        for i in 0..8 {
            sums[i] += x[i] * f64::from(w[i]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Turns pairs of elements of every head in `x[tokens, heads, head_dim]` by an angle proportional to the position.
fn rope(x: &mut [f64], first: usize, n_heads: usize, config: &Config, rope: &(Vec<f32>, f32)) {
    let half = config.rope.dim / 2;
    let (frequencies, magnitude) = (&rope.0, f64::from(rope.1));
    for (index, head) in x.chunks_exact_mut(config.head_dim).enumerate() {
        let position = first + index / n_heads;
        for (i, &frequency) in frequencies.iter().enumerate() {
            let (a, b) = match config.rope.pairing {
                Pairing::Interleaved => (2 * i, 2 * i + 1),
                Pairing::Half => (i, i + half),
            };
            let (sin, cos) = (position as f64 * f64::from(frequency)).sin_cos();
            (head[a], head[b]) =
                ((head[a] * cos - head[b] * sin) * magnitude, (head[a] * sin + head[b] * cos) * magnitude);
        }
    }
}

fn round_to_f16(values: &mut [f64]) {
    for value in values {
        *value = f64::from(f16::from_f32(*value as f32));
    }
}

/// Causal attention with grouped heads: `softmax(q · kᵀ / sqrt(head_dim)) · v` over positions up to the query's own.
/// `q` and the result are `[tokens, n_heads, head_dim]`, the first at position `first`; keys and values
/// `[positions, n_kv_heads, head_dim]`.
fn attention(q: &[f64], keys: &[f64], values: &[f64], first: usize, config: &Config) -> Vec<f64> {
    let (head_dim, kv_dim) = (config.head_dim, config.kv_dim());
    let group = config.n_heads / config.n_kv_heads;
    let scale = 1.0 / (head_dim as f64).sqrt();
    let mut out = vec![0.0; q.len()];
    for (index, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
        let (position, head) = (first + index / config.n_heads, index % config.n_heads);
        let kv_head = head / group * head_dim;
        let scores: Vec<f64> = (0..=position)
            .map(|at| {
                let k = &keys[at * kv_dim + kv_head..][..head_dim];
                scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>()
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        for (at, exp) in exps.iter().enumerate() {
            let v = &values[at * kv_dim + kv_head..][..head_dim];
            out.iter_mut().zip(v).for_each(|(out, v)| *out += exp / sum * v);
        }
    }
    out
}

/// `silu(gate) · up`, with `silu(x) = x / (1 + exp(-x))`.
fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

impl State {
    fn new(config: &Config) -> Self {
        let empty = || vec![Vec::new(); config.n_layers];
        Self { position: 0, keys: empty(), values: empty() }
    }
}

impl Weights {
    async fn load(config: &Config, file: &Loader<'_>) -> Result<Self> {
        let mut layers = Vec::new();
        for index in 0..config.n_layers {
            let biases = config.biases;
            let part = |part: &str| format!("blk.{index}.{part}");
            layers.push(Layer {
                attn_norm: file.values(&part("attn_norm.weight")).await?,
                attn_q: file.linear(&part("attn_q"), biases.q).await?,
                attn_k: file.linear(&part("attn_k"), biases.k).await?,
                attn_v: file.linear(&part("attn_v"), biases.v).await?,
                attn_output: file.linear(&part("attn_output"), biases.output).await?,
                ffn_norm: file.values(&part("ffn_norm.weight")).await?,
                ffn_gate: file.linear(&part("ffn_gate"), false).await?,
                ffn_up: file.linear(&part("ffn_up"), false).await?,
                ffn_down: file.linear(&part("ffn_down"), false).await?,
            });
        }
        let factors = match config.rope.has_factors {
            true => Some(file.values("rope_freqs.weight").await?),
            false => None,
        };
        Ok(Self {
            token_embd: file.matrix("token_embd.weight").await?,
            layers,
            output_norm: file.values("output_norm.weight").await?,
            output: match config.tied_output {
                true => None,
                false => Some(file.linear("output", false).await?),
            },
            rope: config.rope_frequencies(factors.as_deref()),
        })
    }
}

/// Reads tensors of a file whose shapes have been checked.
struct Loader<'a> {
    gguf: &'a Gguf,
}

impl Loader<'_> {
    async fn values(&self, name: &str) -> Result<Vec<f32>> {
        let named = |error: Error| error.context(format!("tensor {name}"));
        let Some(tensor) = self.gguf.tensor(name) else {
            return Err(named(Error::format("not found")));
        };
        let too_large = |_| named(Error::out_of_memory("larger than this machine's addresses"));
        let bytes = usize::try_from(tensor.bytes).map_err(too_large)?;
        let elements = usize::try_from(tensor.shape.iter().product::<u64>()).map_err(too_large)?;
        let bytes = self.gguf.source().read(tensor.offset, bytes).await.map_err(named)?;
        let mut values = vec![0.0; elements];
        quant::dequantize(tensor.dtype, &bytes, &mut values).map_err(named)?;
        Ok(values)
    }

    async fn matrix(&self, name: &str) -> Result<Matrix> {
        let data = self.values(name).await?;
        let cols = self.gguf.tensor(name).and_then(|tensor| tensor.shape.last()).map_or(1, |&cols| cols as usize);
        Ok(Matrix { rows: data.len() / cols, cols, data })
    }

    async fn linear(&self, name: &str, bias: bool) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight")).await?;
        let bias = if bias { Some(self.values(&format!("{name}.bias")).await?) } else { None };
        Ok(Linear { weight, bias })
    }
}

#[cfg(test)]
mod tests;
