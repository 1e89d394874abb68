//! The benchmark's CPU column: the same GGUF file run by candle, a real runtime in Rust, on all cores.
//!
//! ```no_run
//! use anygpu_benches::baseline::Request;
//! use anygpu_native::cpu;
//!
//! let request = Request { file: "model.gguf".into(), batch: 1, n_prompt: 512, n_gen: 128, ..Request::default() };
//! for row in cpu::rows(&request, 5)? {
//!     println!("{} {}: {:?} tokens a second", row.engine, row.test(), row.tokens_per_second);
//! }
//! # Ok::<(), anygpu::Error>(())
//! ```

pub mod vectors;

use anygpu::format::gguf::Gguf;
use anygpu::format::source::MappedFile;
use anygpu::models::llama::Config;
use anygpu::rope::Scaling;
use anygpu::{Error, ErrorKind, Result};
use anygpu_benches::baseline::Request;
use anygpu_benches::report::{Row, suite_of};
use anygpu_benches::stats;
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::{MAX_SEQ_LEN, ModelWeights};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The engine name of the rows.
pub const ENGINE: &str = "cpu:candle-0.11";

/// Tokens that candle reads at once while a context is filled. Its attention scores take `chunk × context` floats a head.
const CHUNK: usize = 512;

/// A llama on the CPU.
pub struct Candle {
    weights: ModelWeights,
    vocab_size: usize,
    load_ms: f64,
}

impl Candle {
    /// Reads a GGUF file.
    ///
    /// # Errors
    /// `Unsupported` for a model that candle refuses, or would compute as another model because it knows nothing of a
    /// feature that the file states; otherwise what is wrong with the file.
    pub fn load(file: &Path) -> Result<Self> {
        let named = |e: Error| e.context(file.display());
        // Our reader first: it checks what candle takes on the file's word.
        let source = Arc::new(MappedFile::open(file).map_err(named)?);
        let gguf = pollster::block_on(Gguf::open(source)).map_err(named)?;
        let shape = |name: &str| gguf.tensor(name).map(|tensor| tensor.shape.clone());
        let config = Config::from_metadata(gguf.metadata(), shape).map_err(named)?;
        ignored(&config).map_err(named)?;
        let start = Instant::now();
        let mut reader = BufReader::new(File::open(file).map_err(|e| named(e.into()))?);
        let weights = Content::read(&mut reader)
            .and_then(|content| ModelWeights::from_gguf(content, &mut reader, &Device::Cpu))
            .map_err(|e| named(refused(e)))?;
        Ok(Self { weights, vocab_size: config.vocab_size, load_ms: start.elapsed().as_secs_f64() * 1e3 })
    }

    /// How long candle took to read the file.
    pub fn load_ms(&self) -> f64 {
        self.load_ms
    }

    /// Logits `[vocabulary]` behind the last of `tokens`, from an empty context: the row's check compares them.
    ///
    /// # Errors
    /// `Shape` for no tokens, more than candle's context or one that is not in the vocabulary.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        if tokens.is_empty() || tokens.len() > MAX_SEQ_LEN {
            return Err(Error::shape(format!("{} tokens, expected 1 to {MAX_SEQ_LEN}", tokens.len())));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= self.vocab_size) {
            return Err(Error::shape(format!("token {token}, expected less than {}", self.vocab_size)));
        }
        let logits = self.forward(tokens.to_vec(), 1, 0)?;
        logits.flatten_all().and_then(|logits| logits.to_vec1()).map_err(refused)
    }

    /// Milliseconds of each of `repeats` prefills of `batch` prompts at once, after one that is not counted.
    ///
    /// # Errors
    /// `Unsupported` past candle's context.
    pub fn prefill(&mut self, batch: usize, n_prompt: usize, repeats: usize) -> Result<Vec<f64>> {
        fits(n_prompt)?;
        let mut samples = Vec::with_capacity(repeats);
        for repeat in 0..=repeats {
            let start = Instant::now();
            self.fill(batch, n_prompt)?;
            if repeat > 0 {
                samples.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        Ok(samples)
    }

    /// Milliseconds of each of `n_gen` steps, one token for each of `batch` sequences, behind `n_depth` tokens. Choosing
    /// the token is not part of it, as in llama-bench.
    ///
    /// # Errors
    /// `Unsupported` past candle's context.
    pub fn decode(&mut self, batch: usize, n_depth: usize, n_gen: usize) -> Result<Vec<f64>> {
        fits(n_depth.saturating_add(n_gen))?;
        // One step more than is counted, from empty, warms threads and caches.
        let warm = self.some_tokens(batch, 0, 1);
        self.forward(warm, batch, 0)?;
        self.weights.clear_kv_cache();
        self.fill(batch, n_depth)?;
        let mut samples = Vec::with_capacity(n_gen);
        for step in n_depth..n_depth + n_gen {
            let tokens = self.some_tokens(batch, step, 1);
            let start = Instant::now();
            self.forward(tokens, batch, step)?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(samples)
    }

    /// The rows that `request` asks for: a prefill of `n_prompt` tokens and a generation of `n_gen`, each unless it is 0.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill) and [`decode`](Self::decode).
    pub fn rows(&mut self, request: &Request, repeats: usize) -> Result<Vec<Row>> {
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let batch = size(request.batch.max(1));
        let mut rows = Vec::new();
        if request.n_prompt > 0 {
            let samples = self.prefill(batch, size(request.n_prompt), repeats)?;
            // The median run, as one slow repeat says more of the machine than of the engine.
            let ms = stats::median(&samples);
            let tokens = (request.n_prompt * request.batch.max(1)) as f64;
            rows.push(self.row(request, request.n_prompt, 0, 0, ms.map(|ms| tokens / ms * 1e3)).with_samples(&samples));
        }
        if request.n_gen > 0 {
            let samples = self.decode(batch, size(request.n_depth), size(request.n_gen))?;
            let tokens = (request.n_gen * request.batch.max(1)) as f64;
            let rate = tokens / samples.iter().sum::<f64>() * 1e3;
            rows.push(self.row(request, 0, request.n_gen, request.n_depth, Some(rate)).with_samples(&samples));
        }
        Ok(rows)
    }

    fn row(&self, request: &Request, n_prompt: u64, n_gen: u64, n_depth: u64, tokens_per_second: Option<f64>) -> Row {
        let threads = candle_core::utils::get_num_threads();
        Row {
            tokens_per_second,
            load_ms: Some(self.load_ms),
            note: Some(format!("{threads} threads")),
            ..labelled(request, n_prompt, n_gen, n_depth)
        }
    }

    /// Starts `batch` contexts anew with `n` tokens each.
    fn fill(&mut self, batch: usize, n: usize) -> Result<()> {
        self.weights.clear_kv_cache();
        for at in (0..n).step_by(CHUNK) {
            let tokens = self.some_tokens(batch, at, CHUNK.min(n - at));
            self.forward(tokens, batch, at)?;
        }
        Ok(())
    }

    /// Logits `[batch, vocabulary]` behind `tokens` `[batch, n]`, whose first stands at `position`.
    fn forward(&mut self, tokens: Vec<u32>, batch: usize, position: usize) -> Result<Tensor> {
        let n = tokens.len() / batch;
        Tensor::from_vec(tokens, (batch, n), &Device::Cpu)
            .and_then(|tokens| self.weights.forward(&tokens, position))
            .map_err(refused)
    }

    /// Tokens `[batch, n]` from `position` on, spread over the vocabulary: timing does not depend on which they are.
    fn some_tokens(&self, batch: usize, position: usize, n: usize) -> Vec<u32> {
        let of = |sequence: usize, i: usize| ((position + i) * 7919 + sequence) % self.vocab_size;
        (0..batch).flat_map(|sequence| (0..n).map(move |i| of(sequence, i) as u32)).collect()
    }
}

/// The rows that `request` asks for of its file. A model or length that candle does not take gives rows with the check
/// `unsupported` and a note that says why.
///
/// # Errors
/// A file that cannot be read or is broken.
pub fn rows(request: &Request, repeats: usize) -> Result<Vec<Row>> {
    let rows = Candle::load(&request.file).and_then(|mut model| model.rows(request, repeats));
    match rows {
        Err(e) if e.kind() == ErrorKind::Unsupported => Ok(unsupported(request, &e)),
        rows => rows,
    }
}

/// The rows that `request` asks for, marked as what candle does not take, because of `reason`.
pub fn unsupported(request: &Request, reason: &Error) -> Vec<Row> {
    let mut rows = Vec::new();
    if request.n_prompt > 0 {
        rows.push(labelled(request, request.n_prompt, 0, 0));
    }
    if request.n_gen > 0 {
        rows.push(labelled(request, 0, request.n_gen, request.n_depth));
    }
    for row in &mut rows {
        row.check = Some("unsupported".into());
        row.note = Some(reason.to_string());
    }
    rows
}

fn labelled(request: &Request, n_prompt: u64, n_gen: u64, n_depth: u64) -> Row {
    let batch = request.batch.max(1);
    Row {
        synthetic: request.synthetic,
        ..Row::new(ENGINE, suite_of(batch, n_gen), &request.model, &request.dtype).case(batch, n_prompt, n_gen, n_depth)
    }
}

/// What candle's quantised llama passes over in silence, so that it would compute another model.
fn ignored(config: &Config) -> Result<()> {
    let biases = config.biases;
    let feature = if config.rope.has_factors || config.rope.scaling != Scaling::None {
        "rope scaling"
    } else if biases.q || biases.k || biases.v || biases.output {
        "biases in the attention"
    } else if config.head_dim * config.n_heads != config.d_model {
        "heads that do not add up to the model's width"
    } else if config.rope.dim != config.head_dim {
        "heads of which only a part is rotated"
    } else {
        return Ok(());
    };
    Err(Error::unsupported(format!("{ENGINE} does not know {feature}")))
}

fn fits(n: usize) -> Result<()> {
    if n <= MAX_SEQ_LEN {
        return Ok(());
    }
    Err(Error::unsupported(format!("a context of {n} tokens: {ENGINE} has at most {MAX_SEQ_LEN}")))
}

fn refused(error: candle_core::Error) -> Error {
    // Candle adds a backtrace where those are switched on; its first line is the message.
    let text = error.to_string();
    Error::unsupported(format!("{ENGINE}: {}", text.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
