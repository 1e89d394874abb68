//! The model as a Burn module: on Burn's kernels, where it can be trained, or on this crate's.

#[cfg(all(test, feature = "burn"))]
mod tests;

use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::config::Config;
use super::plan::rope_table;
use crate::error::{Error, Result};
use crate::format::gguf::Gguf;
use crate::kernels::cache::{CacheShape, Heads, PAGE};
use crate::models::burn_kernels::{Kernels, LayerCache, Paged};
use crate::models::burn_layers::{Embedding, Linear, Loader, RmsNorm, integers};
use crate::models::weights::TensorFile;
use crate::rope::Pairing;

#[derive(Module, Debug)]
struct Layer {
    attn_norm: RmsNorm,
    qkv: Linear,
    attn_output: Linear,
    ffn_norm: RmsNorm,
    gate_up: Linear,
    ffn_down: Linear,
}

/// A `llama` model.
#[derive(Module, Debug)]
pub struct Llama {
    token_embd: Embedding,
    layers: Vec<Layer>,
    output_norm: RmsNorm,
    /// `None`: the embedding matrix.
    output: Option<Linear>,
    /// Radians per position, `[rope.dim / 2]`, and the magnitude.
    #[module(skip)]
    frequencies: (Vec<f32>, f32),
    #[module(skip)]
    config: Config,
    #[module(skip)]
    kernels: Kernels,
}

/// What a conversation has computed so far.
#[derive(Debug)]
pub struct Cache {
    position: usize,
    context_length: usize,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    /// Keys, turned, and values of each layer: `[n_kv_heads, positions, head_dim]` in f32; `None` before the first.
    Dense(Vec<Option<[Tensor<3>; 2]>>),
    /// As this crate's kernels keep them, in f16.
    Paged { layers: Vec<LayerCache>, rope: Tensor<3>, page_table: Tensor<2, Int> },
}

/// cos and sin of the angles of some positions, `[1, positions, rope.dim / 2]`, times the magnitude.
struct Angles {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Llama {
    /// Loads a file.
    ///
    /// # Errors
    /// `Format`, `Shape` or `Unsupported` as [`Config::from_metadata`] and [`Config::check_tensors`]; what reading gives.
    pub async fn load(gguf: &Gguf, device: &Device, kernels: &Kernels) -> Result<Self> {
        let config = Config::from_metadata(gguf.metadata(), |name| Some(gguf.tensor(name)?.shape.clone()))?;
        config.check_tensors(gguf.tensors().iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())))?;
        let file = TensorFile::new(gguf.source().clone(), gguf.tensors().to_vec(), None)?;
        let loader = Loader { file: &file, device, kernels };
        let (d, q, kv, ff) = (config.d_model, config.q_dim(), config.kv_dim(), config.d_ff);
        let (biases, eps) = (config.biases, config.rms_eps);
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            let prefix = format!("blk.{i}.");
            let qkv = [("attn_q", q, biases.q), ("attn_k", kv, biases.k), ("attn_v", kv, biases.v)];
            layers.push(Layer {
                attn_norm: loader.rms_norm(&format!("{prefix}attn_norm.weight"), eps).await?,
                qkv: loader.linear(&qkv, &prefix, d).await?,
                attn_output: loader.linear(&[("attn_output", d, biases.output)], &prefix, q).await?,
                ffn_norm: loader.rms_norm(&format!("{prefix}ffn_norm.weight"), eps).await?,
                gate_up: loader.linear(&[("ffn_gate", ff, false), ("ffn_up", ff, false)], &prefix, d).await?,
                ffn_down: loader.linear(&[("ffn_down", d, false)], &prefix, ff).await?,
            });
        }
        let factors = match config.rope.has_factors {
            true => Some(file.values("rope_freqs.weight").await?),
            false => None,
        };
        let output = match config.tied_output {
            true => None,
            false => Some(loader.linear(&[("output", config.vocab_size, false)], "", d).await?),
        };
        Ok(Self {
            token_embd: loader.embedding("token_embd.weight", d).await?,
            layers,
            output_norm: loader.rms_norm("output_norm.weight", eps).await?,
            output,
            frequencies: config.rope_frequencies(factors.as_deref()),
            config,
            kernels: kernels.clone(),
        })
    }

    /// The model's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn device(&self) -> Device {
        self.output_norm.device()
    }

    fn heads(&self) -> Heads {
        let Config { n_heads, n_kv_heads, head_dim, .. } = self.config;
        Heads { heads: n_heads, kv_heads: n_kv_heads, head_dim }
    }

    /// An empty cache of up to `context_length` positions, rounded up to whole pages.
    pub fn cache(&self, context_length: usize) -> Cache {
        let pages = context_length.div_ceil(PAGE).max(1);
        let context_length = pages * PAGE;
        let keys = match self.kernels {
            Kernels::Burn => Keys::Dense(vec![None; self.config.n_layers]),
            Kernels::Own(_) => {
                let device = self.device();
                let Heads { kv_heads, head_dim, .. } = self.heads();
                let words: usize = CacheShape { pages, heads: kv_heads, head_dim }.words().iter().product();
                let cache = || Tensor::zeros([words], (&device, DType::I32));
                let layers = (0..self.config.n_layers).map(|_| LayerCache { k: cache(), v: cache() }).collect();
                let half = self.frequencies.0.len();
                let table = rope_table(&self.frequencies, context_length);
                let shape = [table.len() / half / 2, half, 2];
                let page_table: Vec<u32> = (0..pages as u32).collect();
                Keys::Paged {
                    layers,
                    rope: Tensor::from_data(TensorData::new(table, shape), &device),
                    page_table: integers(&page_table, [1, pages], &device),
                }
            }
        };
        Cache { position: 0, context_length, keys }
    }

    /// Appends `tokens` to the cache and returns the logits after each, `[tokens, vocab_size]`.
    ///
    /// # Errors
    /// `Shape` for no tokens, a token id out of range and more tokens than the cache has room for, `Unsupported` for the cache
    /// of a module on other kernels; the cache is unchanged then.
    pub fn forward(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor<2>> {
        self.logits(self.hidden(tokens, cache)?)
    }

    /// The same, but only the logits after the last token, `[1, vocab_size]`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_last(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor<2>> {
        let x = self.hidden(tokens, cache)?;
        self.logits(x.narrow(0, tokens.len() - 1, 1))
    }

    /// The stream behind the last layer, `[tokens, d_model]`.
    fn hidden(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor<2>> {
        self.check(tokens, cache)?;
        let device = self.device();
        let positions = cache.position..cache.position + tokens.len();
        let words: Vec<u32> =
            tokens.iter().zip(positions).flat_map(|(&token, position)| [token, 0, position as u32, 1]).collect();
        let rows = integers(&words, [tokens.len(), 4], &device);
        let angles = match cache.keys {
            Keys::Dense(_) => Some(self.angles(cache.position, tokens.len())),
            Keys::Paged { .. } => None,
        };
        let mut x = self.token_embd.forward(&rows)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let qkv = layer.qkv.forward(layer.attn_norm.forward(&x)?)?;
            let attended = self.attention(i, qkv, &rows, cache, angles.as_ref())?;
            x = layer.attn_output.add_to(x, attended)?;
            let gate_up = layer.gate_up.forward(layer.ffn_norm.forward(&x)?)?;
            x = layer.ffn_down.add_to(x, self.gated(gate_up)?)?;
        }
        cache.position += tokens.len();
        Ok(x)
    }

    fn logits(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        let normed = self.output_norm.forward(&x)?;
        match &self.output {
            Some(output) => output.forward(normed),
            None => self.token_embd.tied().forward(normed),
        }
    }

    fn check(&self, tokens: &[u32], cache: &Cache) -> Result<()> {
        let vocab_size = self.config.vocab_size;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::shape(format!("token {token}: expected one below {vocab_size}")));
        }
        if matches!(cache.keys, Keys::Dense(_)) != matches!(self.kernels, Kernels::Burn) {
            return Err(Error::unsupported("a cache of another module: expected one that this one made"));
        }
        let room = cache.context_length - cache.position;
        if tokens.is_empty() || tokens.len() > room {
            let found = tokens.len();
            return Err(Error::shape(format!("{found} tokens: expected 1 to {room} more in the cache")));
        }
        Ok(())
    }

    fn gated(&self, gate_up: Tensor<2>) -> Result<Tensor<2>> {
        if let Kernels::Own(launcher) = &self.kernels {
            return launcher.swiglu(&gate_up);
        }
        let ff = self.config.d_ff;
        Ok(silu(gate_up.clone().narrow(1, 0, ff)) * gate_up.narrow(1, ff, ff))
    }

    /// Of `qkv[M, (H + 2 KV) · head_dim]`: `[M, H · head_dim]`.
    fn attention(
        &self,
        layer: usize,
        qkv: Tensor<2>,
        rows: &Tensor<2, Int>,
        cache: &mut Cache,
        angles: Option<&Angles>,
    ) -> Result<Tensor<2>> {
        let Heads { heads, kv_heads, head_dim } = self.heads();
        let count = qkv.dims()[0];
        let keys = match (&mut cache.keys, &self.kernels, angles) {
            (Keys::Paged { layers, rope, page_table }, Kernels::Own(launcher), _) => {
                let paged = Paged {
                    rows,
                    rope,
                    page_table,
                    cache: &layers[layer],
                    heads: self.heads(),
                    pairing: self.config.rope.pairing,
                    context: cache.position + count,
                };
                return launcher.rope_attention(qkv, &paged);
            }
            (Keys::Dense(keys), Kernels::Burn, Some(angles)) => (&mut keys[layer], angles),
            _ => return Err(Error::unsupported("a cache of another module: expected one that this one made")),
        };
        let (past, angles) = keys;
        // Heads first: `[heads, M, head_dim]`.
        let part = |from: usize, heads: usize| {
            qkv.clone().narrow(1, from * head_dim, heads * head_dim).reshape([count, heads, head_dim]).swap_dims(0, 1)
        };
        let q = self.turn(part(0, heads), angles);
        let mut k = self.turn(part(heads, kv_heads), angles);
        let mut v = part(heads + kv_heads, kv_heads);
        if let Some([past_k, past_v]) = past.take() {
            (k, v) = (Tensor::cat(vec![past_k, k], 1), Tensor::cat(vec![past_v, v], 1));
        }
        *past = Some([k.clone(), v.clone()]);
        let length = k.dims()[1];
        // Queries that share a key head lie one behind the other.
        let group = heads / kv_heads;
        let repeat = |x: Tensor<3>| {
            let x: Tensor<4> = x.unsqueeze_dim(1);
            x.expand([kv_heads, group, length, head_dim]).reshape([1, heads, length, head_dim])
        };
        let mask = (count > 1).then(|| {
            let first = length - count;
            let hidden = |row: usize| (0..length).map(move |at| if at > first + row { 1.0f32 } else { 0.0 });
            let values: Vec<f32> = (0..count).flat_map(hidden).collect();
            let hidden: Tensor<2> = Tensor::from_data(TensorData::new(values, [count, length]), &qkv.device());
            hidden.greater_elem(0.5).reshape([1, 1, count, length]).expand([1, heads, count, length])
        });
        let options = AttentionModuleOptions::default();
        let y = attention(q.unsqueeze(), repeat(k), repeat(v), mask, None, options);
        Ok(y.swap_dims(1, 2).reshape([count, heads * head_dim]))
    }

    /// Computed on the host: a GPU's sine of a large angle is not exact to f32.
    fn angles(&self, first: usize, count: usize) -> Angles {
        let (frequencies, magnitude) = &self.frequencies;
        let table = |of: fn(f64) -> f64| {
            let angle = |position: usize| frequencies.iter().map(move |&w| position as f64 * f64::from(w));
            let values = (first..first + count).flat_map(angle).map(|v| (of(v) * f64::from(*magnitude)) as f32);
            let data = TensorData::new(values.collect::<Vec<f32>>(), [1, count, frequencies.len()]);
            Tensor::from_data(data, &self.device())
        };
        Angles { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Turns pairs of elements of `x[heads, positions, head_dim]`; elements past `rope.dim` stay.
    fn turn(&self, x: Tensor<3>, angles: &Angles) -> Tensor<3> {
        let [heads, count, head_dim] = x.dims();
        let (dim, half) = (self.config.rope.dim, self.config.rope.dim / 2);
        let turned = x.clone().narrow(2, 0, dim);
        let (a, b) = match self.config.rope.pairing {
            Pairing::Half => (turned.clone().narrow(2, 0, half), turned.narrow(2, half, half)),
            Pairing::Interleaved => {
                let pairs = turned.reshape([heads, count, half, 2]);
                let part = |at: usize| pairs.clone().narrow(3, at, 1).reshape([heads, count, half]);
                (part(0), part(1))
            }
        };
        let left = a.clone() * angles.cos.clone() - b.clone() * angles.sin.clone();
        let right = a * angles.sin.clone() + b * angles.cos.clone();
        let turned = match self.config.rope.pairing {
            Pairing::Half => Tensor::cat(vec![left, right], 2),
            Pairing::Interleaved => Tensor::stack::<4>(vec![left, right], 3).reshape([heads, count, dim]),
        };
        match dim == head_dim {
            true => turned,
            false => Tensor::cat(vec![turned, x.narrow(2, dim, head_dim - dim)], 2),
        }
    }
}
