//! Small random models as GGUF files in memory, for tests: every tensor type, head layout and rope form.
//!
//! Weights are made meaningful: activations stay near 1 through any number of layers, attention is neither flat nor
//! one-hot, rows differ in scale, and a few weights are outliers, which block formats find hard.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::gguf::{TensorInfo, Writer};
use crate::format::{Metadata, Value};
use crate::models::llama::config::{Biases, Config, Kind};
use crate::quant;
use crate::rope::{Pairing, Rope, Scaling};

/// How the frequencies are stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeForm {
    /// Not at all.
    Plain,
    /// By a factor of 4.
    Linear,
    /// YaRN, by a factor of 4.
    Yarn,
    /// By `rope_freqs.weight`, from 1 at the fastest frequency to 8 at the slowest.
    Factors,
}

/// What a small model is made of.
#[derive(Clone, Debug)]
pub struct TinySpec {
    /// Format of every matrix; vectors are f32.
    pub dtype: DType,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream; whole blocks of `dtype`.
    pub d_model: usize,
    /// Query heads; `n_heads * head_dim` is whole blocks of `dtype`.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width of the feed-forward block; whole blocks of `dtype`.
    pub d_ff: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Positions.
    pub context_length: usize,
    /// Elements of a head that turn; `None`: all.
    pub rope_dim: Option<usize>,
    /// How the frequencies are stretched.
    pub rope: RopeForm,
    /// The output matrix is the embedding matrix.
    pub tied: bool,
    /// The attention's products have biases.
    pub bias: bool,
    /// The same seed gives the same file.
    pub seed: u64,
}

impl Default for TinySpec {
    /// Two layers of width 256, which every format divides, with four query heads on two key heads.
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            n_layers: 2,
            d_model: 256,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 64,
            d_ff: 512,
            vocab_size: 320,
            context_length: 512,
            rope_dim: None,
            rope: RopeForm::Plain,
            tied: false,
            bias: false,
            seed: 1,
        }
    }
}

impl TinySpec {
    /// The configuration that the file states.
    pub fn config(&self) -> Config {
        let scaling = match self.rope {
            RopeForm::Plain | RopeForm::Factors => Scaling::None,
            RopeForm::Linear => Scaling::Linear { factor: 4.0 },
            // Betas that put the ramp inside a short context's few turns.
            RopeForm::Yarn => Scaling::Yarn {
                factor: 4.0,
                original_context: self.context_length / 4,
                beta_fast: 8.0,
                beta_slow: 1.0,
                attn_factor: 1.0,
            },
        };
        Config {
            n_layers: self.n_layers,
            d_model: self.d_model,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            d_ff: self.d_ff,
            vocab_size: self.vocab_size,
            context_length: self.context_length,
            rms_eps: 1e-5,
            rope: Rope {
                base: 10_000.0,
                dim: self.rope_dim.unwrap_or(self.head_dim),
                pairing: Pairing::Interleaved,
                scaling,
                has_factors: self.rope == RopeForm::Factors,
            },
            tied_output: self.tied,
            biases: Biases { q: self.bias, k: self.bias, v: self.bias, output: self.bias },
        }
    }
}

/// A GGUF file of random weights, without a tokenizer.
///
/// # Errors
/// `Shape` where a width is no whole number of blocks.
pub fn tiny_gguf(spec: &TinySpec) -> Result<Vec<u8>> {
    let mut random = Random(spec.seed);
    tiny_gguf_of(spec, |name, len, _| random.row(name, len))
}

/// [`tiny_gguf`] with weights of the caller's: `fill(name, len, row)` returns row `row` of a tensor, or a vector as row
/// 0, of `len` values.
///
/// # Errors
/// `Shape` where a width is no whole number of blocks, or `fill` returns another number of values.
pub fn tiny_gguf_of(spec: &TinySpec, mut fill: impl FnMut(&str, usize, usize) -> Vec<f32>) -> Result<Vec<u8>> {
    let config = spec.config();
    let mut infos = Vec::new();
    for tensor in config.tensors() {
        let dtype = if tensor.kind == Kind::Matrix { spec.dtype } else { DType::F32 };
        infos.push(TensorInfo::new(tensor.name, dtype, tensor.shape)?);
    }
    let mut writer = Writer::new(Vec::new(), &metadata(&config), infos.clone())?;
    for info in &infos {
        let cols = info.shape.last().map_or(1, |&cols| cols as usize);
        let mut bytes = Vec::new();
        for row in 0..info.elements() as usize / cols {
            let values = fill(&info.name, cols, row);
            if values.len() != cols {
                let found = values.len();
                return Err(Error::shape(format!("tensor {}: row of {found}, expected {cols}", info.name)));
            }
            quant::quantize(info.dtype, &values, &mut bytes)?;
        }
        writer.write(&info.name, &bytes)?;
    }
    writer.finish()
}

fn metadata(config: &Config) -> Metadata {
    let uint = |value: usize| Value::Uint(value as u64);
    let mut entries = vec![
        ("general.architecture", Value::String("llama".into())),
        ("general.name", Value::String("tiny random llama".into())),
        ("tokenizer.ggml.model", Value::String("no_vocab".into())),
        ("llama.block_count", uint(config.n_layers)),
        ("llama.context_length", uint(config.context_length)),
        ("llama.embedding_length", uint(config.d_model)),
        ("llama.feed_forward_length", uint(config.d_ff)),
        ("llama.attention.head_count", uint(config.n_heads)),
        ("llama.attention.head_count_kv", uint(config.n_kv_heads)),
        ("llama.attention.key_length", uint(config.head_dim)),
        ("llama.attention.value_length", uint(config.head_dim)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float32(config.rms_eps)),
        ("llama.vocab_size", uint(config.vocab_size)),
        ("llama.rope.dimension_count", uint(config.rope.dim)),
        ("llama.rope.freq_base", Value::Float32(config.rope.base)),
    ];
    let kind = match config.rope.scaling {
        Scaling::None => "none",
        Scaling::Linear { factor } => {
            entries.push(("llama.rope.scaling.factor", Value::Float32(factor)));
            "linear"
        }
        Scaling::Yarn { factor, original_context, beta_fast, beta_slow, attn_factor } => {
            entries.push(("llama.rope.scaling.factor", Value::Float32(factor)));
            entries.push(("llama.rope.scaling.original_context_length", uint(original_context)));
            entries.push(("llama.rope.scaling.yarn_beta_fast", Value::Float32(beta_fast)));
            entries.push(("llama.rope.scaling.yarn_beta_slow", Value::Float32(beta_slow)));
            entries.push(("llama.rope.scaling.attn_factor", Value::Float32(attn_factor)));
            "yarn"
        }
    };
    entries.push(("llama.rope.scaling.type", Value::String(kind.into())));
    entries.into_iter().collect()
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, and good enough for weights.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }

    /// A row of the tensor of this name.
    fn row(&mut self, name: &str, len: usize) -> Vec<f32> {
        if name == "rope_freqs.weight" {
            return (0..len).map(|i| 1.0 + 7.0 * i as f32 / (len.max(2) - 1) as f32).collect();
        }
        if name.ends_with("_norm.weight") {
            // Trained norms lie around a mean, with channels that are several times as loud.
            return (0..len)
                .map(|_| if self.uniform() < 0.02 { 2.5 } else { 1.0 + 0.15 * self.normal() })
                .map(|v| v as f32)
                .collect();
        }
        if name.ends_with(".bias") {
            return (0..len).map(|_| (0.3 * self.normal()) as f32).collect();
        }
        // Products of `len` terms of deviation 1 keep their deviation; queries and keys are louder, so that attention
        // prefers some positions; what is added to the stream is quieter, so that it grows slowly.
        let deviation = match name {
            "token_embd.weight" => 1.0,
            "output.weight" => 3.0 / (len as f64).sqrt(),
            _ if name.contains("attn_q.") || name.contains("attn_k.") => 1.3 / (len as f64).sqrt(),
            _ if name.contains("attn_output.") || name.contains("ffn_down.") => 0.7 / (len as f64).sqrt(),
            _ => 1.0 / (len as f64).sqrt(),
        };
        let row_scale = deviation * (0.2 * self.normal()).exp();
        (0..len)
            .map(|_| {
                let outlier = if self.uniform() < 0.004 { 5.0 } else { 1.0 };
                (row_scale * outlier * self.normal()) as f32
            })
            .collect()
    }
}
