//! The numbers of a `llama` model: read from metadata, checked, and checked again against the file's tensors.

use std::collections::BTreeMap;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::{Metadata, Value};
use crate::models::ARCHITECTURES;
use crate::rope::{Pairing, Rope, Scaling};

/// Numbers past these are taken for a broken file: each is several times what the largest published model has, and
/// small enough that no product of two of them overflows an `f64`'s or a `u64`'s integers.
const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 4096;
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCABULARY: usize = 1 << 22;
const MAX_CONTEXT: usize = 1 << 26;

/// The kernels keep a head in registers and workgroup memory, in vectors of 8.
const MAX_HEAD_DIM: usize = 256;
const HEAD_DIM_MULTIPLE: usize = 8;

/// Which of the attention's products have a bias vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// `attn_q.bias`.
    pub q: bool,
    /// `attn_k.bias`.
    pub k: bool,
    /// `attn_v.bias`.
    pub v: bool,
    /// `attn_output.bias`.
    pub output: bool,
}

/// A `llama` model's sizes and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream (`embedding_length`).
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`. Query head `h` attends to key head `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Elements of a head, of queries, keys and values alike.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub d_ff: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Positions the model was made for.
    pub context_length: usize,
    /// Added to the mean square in RMS norms.
    pub rms_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// The output matrix is the embedding matrix.
    pub tied_output: bool,
    /// Which of the attention's products have a bias.
    pub biases: Biases,
}

/// What a tensor is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[rows, cols]`, in any weight format; a row is whole blocks.
    Matrix,
    /// `[len]`, in a plain format.
    Vector,
}

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// GGUF's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Outermost first.
    pub shape: Vec<u64>,
    /// What it is used as.
    pub kind: Kind,
}

/// The sizes that [`Config::synthetic`] knows.
pub const SYNTHETIC: [&str; 4] = ["llama-2-7b", "llama-2-13b", "llama-2-70b", "llama-1b"];

impl Config {
    /// Reads `general.architecture = llama` and its `llama.*` keys. `shape` looks a tensor's shape up by name, outermost
    /// first: the vocabulary's size, tied output and biases are stated by tensors alone.
    ///
    /// A key `llama.attention.sliding_window` is ignored, as llama.cpp does for this architecture: Mistral's first model,
    /// whose window it was, attends to everything there too.
    ///
    /// # Errors
    /// `Unsupported` for another architecture, a mixture of experts or a feature that this crate's plans lack; `Format`
    /// for a key that is missing, has the wrong type, or contradicts another. All name the key, found and expected.
    pub fn from_metadata(metadata: &Metadata, shape: impl Fn(&str) -> Option<Vec<u64>>) -> Result<Self> {
        let architecture = metadata.required("general.architecture", Metadata::str)?;
        if architecture != "llama" {
            return Err(Error::unsupported(format!(
                "metadata general.architecture: found {architecture:?}, expected one of {}",
                ARCHITECTURES.join(", ")
            )));
        }
        let keys = Keys { metadata };
        keys.refuse_unsupported()?;

        let n_layers = keys.size("block_count", MAX_LAYERS)?;
        let d_model = keys.size("embedding_length", MAX_WIDTH)?;
        let d_ff = keys.size_per_layer("feed_forward_length", n_layers, MAX_WIDTH)?;
        let n_heads = keys.size_per_layer("attention.head_count", n_layers, MAX_HEADS)?;
        let n_kv_heads = match keys.get("attention.head_count_kv") {
            Some(_) => keys.size_per_layer("attention.head_count_kv", n_layers, MAX_HEADS)?,
            None => n_heads,
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(keys.wrong("attention.head_count_kv", n_kv_heads, format!("a divisor of {n_heads} heads")));
        }
        let head_dim = match keys.optional_size("attention.key_length", MAX_HEAD_DIM)? {
            Some(head_dim) => head_dim,
            None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
            None => {
                return Err(keys.wrong("embedding_length", d_model, format!("a multiple of {n_heads} heads")));
            }
        };
        if head_dim == 0 || head_dim > MAX_HEAD_DIM || !head_dim.is_multiple_of(HEAD_DIM_MULTIPLE) {
            return Err(Error::unsupported(format!(
                "heads of {head_dim} elements: expected a multiple of {HEAD_DIM_MULTIPLE} up to {MAX_HEAD_DIM}"
            )));
        }
        if let Some(value_length) = keys.optional_size("attention.value_length", MAX_WIDTH)?
            && value_length != head_dim
        {
            return Err(Error::unsupported(format!(
                "metadata llama.attention.value_length: found {value_length}, expected the keys' {head_dim}"
            )));
        }
        let context_length = keys.size("context_length", MAX_CONTEXT)?;
        let rms_eps = keys.required_f32("attention.layer_norm_rms_epsilon")?;
        if !(rms_eps > 0.0 && rms_eps < 1.0) {
            return Err(keys.wrong("attention.layer_norm_rms_epsilon", rms_eps, "a number between 0 and 1"));
        }

        let embedding = shape("token_embd.weight").ok_or_else(|| missing("token_embd.weight"))?;
        let vocab_size = match embedding[..] {
            [rows, cols] if cols == d_model as u64 && rows > 0 && rows <= MAX_VOCABULARY as u64 => rows as usize,
            _ => {
                return Err(Error::shape(format!(
                    "tensor token_embd.weight: found shape {embedding:?}, expected [1 to {MAX_VOCABULARY}, {d_model}]"
                )));
            }
        };
        if let Some(stated) = keys.optional_size("vocab_size", MAX_VOCABULARY)?
            && stated != vocab_size
        {
            return Err(keys.wrong("vocab_size", stated, format!("{vocab_size}, the rows of token_embd.weight")));
        }
        let has_bias = |part: &str| shape(&format!("blk.0.attn_{part}.bias")).is_some();
        Ok(Self {
            n_layers,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            d_ff,
            vocab_size,
            context_length,
            rms_eps,
            rope: keys.rope(head_dim, context_length, shape("rope_freqs.weight").is_some())?,
            tied_output: shape("output.weight").is_none(),
            biases: Biases { q: has_bias("q"), k: has_bias("k"), v: has_bias("v"), output: has_bias("output") },
        })
    }

    /// The sizes of a well-known model, for timing without a file: one of [`SYNTHETIC`]. `llama-1b` has TinyLlama's.
    ///
    /// # Errors
    /// `Unsupported` for another name.
    ///
    /// ```
    /// let config = anygpu::models::llama::Config::synthetic("llama-2-7b")?;
    /// assert_eq!((config.n_layers, config.d_model, config.head_dim), (32, 4096, 128));
    /// # Ok::<(), anygpu::Error>(())
    /// ```
    pub fn synthetic(name: &str) -> Result<Self> {
        let (d_model, d_ff, n_layers, n_heads, n_kv_heads, context_length) = match name {
            "llama-2-7b" => (4096, 11008, 32, 32, 32, 4096),
            "llama-2-13b" => (5120, 13824, 40, 40, 40, 4096),
            "llama-2-70b" => (8192, 28672, 80, 64, 8, 4096),
            "llama-1b" => (2048, 5632, 22, 32, 4, 2048),
            _ => {
                return Err(Error::unsupported(format!(
                    "synthetic model {name:?}: expected one of {}",
                    SYNTHETIC.join(", ")
                )));
            }
        };
        let head_dim = d_model / n_heads;
        Ok(Self {
            n_layers,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            d_ff,
            vocab_size: 32_000,
            context_length,
            rms_eps: 1e-5,
            rope: Rope {
                base: 10_000.0,
                dim: head_dim,
                pairing: Pairing::Interleaved,
                scaling: Scaling::None,
                has_factors: false,
            },
            tied_output: false,
            biases: Biases::default(),
        })
    }

    /// Inverse frequencies `[rope.dim / 2]` and the magnitude: [`Rope::frequencies`] with the file's
    /// `rope_freqs.weight`, `[rope.dim / 2]`, as `factors`.
    pub fn rope_frequencies(&self, factors: Option<&[f32]>) -> (Vec<f32>, f32) {
        self.rope.frequencies(factors)
    }

    /// Elements of all query heads together: the rows of `attn_q`.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Elements of all key heads together: the rows of `attn_k` and of `attn_v`.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Every tensor of the model, in the order of use.
    pub fn tensors(&self) -> Vec<Expected> {
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: &[usize]| {
            let kind = if shape.len() == 2 { Kind::Matrix } else { Kind::Vector };
            tensors.push(Expected { name, shape: shape.iter().map(|&size| size as u64).collect(), kind });
        };
        let (d_model, q_dim, kv_dim, d_ff) = (self.d_model, self.q_dim(), self.kv_dim(), self.d_ff);
        add("token_embd.weight".into(), &[self.vocab_size, d_model]);
        if self.rope.has_factors {
            add("rope_freqs.weight".into(), &[self.rope.dim / 2]);
        }
        for layer in 0..self.n_layers {
            let mut part = |part: &str, shape: &[usize]| add(format!("blk.{layer}.{part}"), shape);
            part("attn_norm.weight", &[d_model]);
            for (name, bias, rows, cols) in [
                ("attn_q", self.biases.q, q_dim, d_model),
                ("attn_k", self.biases.k, kv_dim, d_model),
                ("attn_v", self.biases.v, kv_dim, d_model),
                ("attn_output", self.biases.output, d_model, q_dim),
            ] {
                part(&format!("{name}.weight"), &[rows, cols]);
                if bias {
                    part(&format!("{name}.bias"), &[rows]);
                }
            }
            part("ffn_norm.weight", &[d_model]);
            part("ffn_gate.weight", &[d_ff, d_model]);
            part("ffn_up.weight", &[d_ff, d_model]);
            part("ffn_down.weight", &[d_model, d_ff]);
        }
        add("output_norm.weight".into(), &[d_model]);
        if !self.tied_output {
            add("output.weight".into(), &[self.vocab_size, d_model]);
        }
        tensors
    }

    /// Checks a file's tensors, as `(name, format, shape outermost first)`, against [`Config::tensors`].
    ///
    /// # Errors
    /// `Format` for a missing tensor, `Shape` for one of another shape or whose rows are not whole blocks, `Unsupported`
    /// for a vector in a block format and for a tensor that this architecture does not have: it would take part in the
    /// answer somehow, and leaving it out would be silently wrong.
    pub fn check_tensors<'a>(&self, found: impl IntoIterator<Item = (&'a str, DType, &'a [u64])>) -> Result<()> {
        let mut found: BTreeMap<&str, (DType, &[u64])> =
            found.into_iter().map(|(name, dtype, shape)| (name, (dtype, shape))).collect();
        for Expected { name, shape, kind } in self.tensors() {
            let Some((dtype, found_shape)) = found.remove(name.as_str()) else {
                return Err(missing(&name));
            };
            if found_shape != shape {
                return Err(Error::shape(format!("tensor {name}: found shape {found_shape:?}, expected {shape:?}")));
            }
            let cols = shape.last().copied().unwrap_or(0);
            match kind {
                Kind::Vector if dtype.is_quantized() => {
                    return Err(Error::unsupported(format!("tensor {name}: found {dtype}, expected f32, f16 or bf16")));
                }
                Kind::Matrix if !cols.is_multiple_of(dtype.block_len() as u64) => {
                    return Err(Error::shape(format!(
                        "tensor {name}: found rows of {cols}, expected whole {dtype} blocks of {}",
                        dtype.block_len()
                    )));
                }
                _ => {}
            }
        }
        // Old converters kept the checkpoint's precomputed frequencies, which nobody reads.
        found.retain(|name, _| !name.ends_with("attn_rot_embd") && !name.ends_with("attn_rot_embd.weight"));
        match found.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::unsupported(format!("tensor {name}: expected no such tensor in a llama model"))),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::format(format!("tensor {name}: not found, expected it in a llama model"))
}

/// The keys under `llama.`.
struct Keys<'a> {
    metadata: &'a Metadata,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(&format!("llama.{key}"))
    }

    fn wrong(&self, key: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::format(format!("metadata llama.{key}: found {found}, expected {expected}"))
    }

    /// An integer up to `max`; zero counts as one that is there.
    fn optional_size(&self, key: &str, max: usize) -> Result<Option<usize>> {
        match self.metadata.u64(&format!("llama.{key}"))? {
            None => Ok(None),
            Some(value) if value <= max as u64 => Ok(Some(value as usize)),
            Some(value) => Err(self.wrong(key, value, format!("at most {max}"))),
        }
    }

    /// An integer from 1 to `max`.
    fn size(&self, key: &str, max: usize) -> Result<usize> {
        match self.optional_size(key, max)? {
            Some(0) => Err(self.wrong(key, 0, "at least 1")),
            Some(value) => Ok(value),
            None => Err(self.wrong(key, "nothing", "a value")),
        }
    }

    /// An integer from 1 to `max`, stated once or, all the same, for each layer.
    fn size_per_layer(&self, key: &str, n_layers: usize, max: usize) -> Result<usize> {
        let Some(Value::Ints(values)) = self.get(key) else {
            return self.size(key, max);
        };
        if values.len() != n_layers {
            return Err(self.wrong(
                key,
                format!("{} values", values.len()),
                format!("one for each of {n_layers} layers"),
            ));
        }
        match values.first() {
            Some(&first) if values.iter().any(|&value| value != first) => Err(Error::unsupported(format!(
                "metadata llama.{key}: found values that differ between layers, expected the same for all"
            ))),
            Some(&first) if first >= 1 && first <= max as i64 => Ok(first as usize),
            first => Err(self.wrong(key, first.copied().unwrap_or(0), format!("a value from 1 to {max}"))),
        }
    }

    fn optional_f32(&self, key: &str) -> Result<Option<f32>> {
        self.metadata.f32(&format!("llama.{key}"))
    }

    fn required_f32(&self, key: &str) -> Result<f32> {
        self.optional_f32(key)?.ok_or_else(|| self.wrong(key, "nothing", "a value"))
    }

    /// A finite float above zero, or its default.
    fn positive(&self, key: &str, default: f32) -> Result<f32> {
        match self.optional_f32(key)? {
            None => Ok(default),
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(self.wrong(key, value, "a finite number above 0")),
        }
    }

    /// Features that relatives of the architecture have, with the value that means "not used". Files that state another
    /// one would run, and be wrong.
    fn refuse_unsupported(&self) -> Result<()> {
        for (key, neutral) in [("expert_count", 0), ("expert_used_count", 0)] {
            if let Some(value) = self.metadata.u64(&format!("llama.{key}"))?
                && value != neutral
            {
                return Err(Error::unsupported(format!(
                    "metadata llama.{key}: found {value}, expected 0: mixtures of experts are not supported"
                )));
            }
        }
        for (key, neutral) in [
            ("logit_scale", 1.0),
            ("residual_scale", 1.0),
            ("embedding_scale", 1.0),
            ("attention.scale", 0.0),
            ("attention.clamp_kqv", 0.0),
            ("attention.max_alibi_bias", 0.0),
            ("attn_logit_softcapping", 0.0),
            ("final_logit_softcapping", 0.0),
            ("rope.scaling.yarn_log_multiplier", 0.0),
        ] {
            if let Some(value) = self.optional_f32(key)?
                && value != neutral
            {
                return Err(Error::unsupported(format!("metadata llama.{key}: found {value}, expected {neutral}")));
            }
        }
        for (key, neutral) in [("attention.causal", true), ("use_parallel_residual", false)] {
            if let Some(value) = self.metadata.bool(&format!("llama.{key}"))?
                && value != neutral
            {
                return Err(Error::unsupported(format!("metadata llama.{key}: found {value}, expected {neutral}")));
            }
        }
        Ok(())
    }

    fn rope(&self, head_dim: usize, context_length: usize, has_factors: bool) -> Result<Rope> {
        let dim = self.optional_size("rope.dimension_count", MAX_WIDTH)?.unwrap_or(head_dim);
        if dim == 0 || dim > head_dim || !dim.is_multiple_of(2) {
            return Err(self.wrong("rope.dimension_count", dim, format!("an even number from 2 to {head_dim}")));
        }
        let base = self.positive("rope.freq_base", 10_000.0)?;
        // YaRN divides by the base's logarithm.
        if base <= 1.0 {
            return Err(self.wrong("rope.freq_base", base, "a number above 1"));
        }
        // Files before 2023-11 state the factor as `rope.scale_linear`; 0 means none, as in llama.cpp.
        let factor = match self.optional_f32("rope.scaling.factor")? {
            Some(factor) if factor != 0.0 => self.positive("rope.scaling.factor", factor)?,
            _ => match self.optional_f32("rope.scale_linear")? {
                Some(factor) if factor != 0.0 => self.positive("rope.scale_linear", factor)?,
                _ => 1.0,
            },
        };
        let scaling = match self.metadata.str("llama.rope.scaling.type")?.unwrap_or("linear") {
            "none" => Scaling::None,
            "linear" if factor == 1.0 => Scaling::None,
            "linear" => Scaling::Linear { factor },
            "yarn" => {
                let original = self.optional_size("rope.scaling.original_context_length", MAX_CONTEXT)?;
                Scaling::Yarn {
                    factor,
                    original_context: original.filter(|&length| length > 0).unwrap_or(context_length),
                    beta_fast: self.positive("rope.scaling.yarn_beta_fast", 32.0)?,
                    beta_slow: self.positive("rope.scaling.yarn_beta_slow", 1.0)?,
                    attn_factor: self.positive("rope.scaling.attn_factor", 1.0)?,
                }
            }
            other => {
                return Err(Error::unsupported(format!(
                    "metadata llama.rope.scaling.type: found {other:?}, expected one of none, linear, yarn"
                )));
            }
        };
        Ok(Rope { base, dim, pairing: Pairing::Interleaved, scaling, has_factors })
    }
}

#[cfg(test)]
mod tests;
