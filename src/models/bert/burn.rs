//! The encoder as a Burn module: on Burn's kernels, where it can be trained, or on this crate's.

#[cfg(all(test, feature = "burn"))]
mod tests;

use burn::module::{Module, Param};
use burn::tensor::module::attention;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::config::{Config, Pooling};
use super::plan::position_table;
use crate::error::{Error, Result};
use crate::kernels::packed::pack;
use crate::kernels::pool::Rows;
use crate::models::burn_kernels::Kernels;
use crate::models::burn_layers::{Embedding, LayerNorm, Linear, Loader, column, integers};
use crate::models::weights::TensorFile;

#[derive(Module, Debug)]
struct Layer {
    qkv: Linear,
    attn_output: Linear,
    attn_output_norm: LayerNorm,
    ffn_up: Linear,
    ffn_down: Linear,
    layer_output_norm: LayerNorm,
}

/// A BERT encoder.
///
/// ```
/// # pollster::block_on(async {
/// use anygpu::format::Safetensors;
/// use anygpu::models::bert::{Pooling, burn::Bert, file::from_safetensors, testing};
/// use anygpu::models::burn_kernels::Kernels;
///
/// let config = testing::tiny_config();
/// let file = Safetensors::open(std::sync::Arc::new(testing::tiny_safetensors(&config, 7, "")?)).await?;
/// let file = from_safetensors(&file, &config, None)?;
/// let bert = Bert::load(config, &file, &burn::tensor::Device::flex(), &Kernels::Burn).await?;
/// let vectors = bert.embed(&[&[1, 2, 3], &[4]], Pooling::Mean, true)?;
/// assert_eq!(vectors.dims(), [2, 64]);
/// # Ok::<(), anygpu::Error>(()) }).unwrap();
/// ```
#[derive(Module, Debug)]
pub struct Bert {
    token_embd: Embedding,
    /// `[max_positions, d_model]`, the embedding of segment 0 added.
    position_embd: Param<Tensor<2>>,
    token_embd_norm: LayerNorm,
    layers: Vec<Layer>,
    #[module(skip)]
    config: Config,
    #[module(skip)]
    kernels: Kernels,
}

/// Texts as the layers take them: without padding for this crate's kernels, all as long as the longest for Burn's.
struct Batch {
    /// `[M, 4]`: see [`crate::kernels::packed`].
    rows: Tensor<2, Int>,
    texts: Texts,
}

enum Texts {
    /// `[S, 2]`: first row and rows of each.
    Packed(Tensor<2, Int>),
    /// How long each is, and the longest.
    Padded { lengths: Vec<usize>, longest: usize },
}

impl Bert {
    /// Loads the weights.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn load(config: Config, file: &TensorFile, device: &Device, kernels: &Kernels) -> Result<Self> {
        let loader = Loader { file, device, kernels };
        let (d, ff) = (config.d_model, config.d_ff);
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            let prefix = format!("blk.{i}.");
            let norm = |part: &str| format!("{prefix}{part}");
            layers.push(Layer {
                qkv: loader
                    .linear(&[("attn_q", d, true), ("attn_k", d, true), ("attn_v", d, true)], &prefix, d)
                    .await?,
                attn_output: loader.linear(&[("attn_output", d, true)], &prefix, d).await?,
                attn_output_norm: loader.layer_norm(&norm("attn_output_norm"), config.eps).await?,
                ffn_up: loader.linear(&[("ffn_up", ff, true)], &prefix, d).await?,
                ffn_down: loader.linear(&[("ffn_down", d, true)], &prefix, ff).await?,
                layer_output_norm: loader.layer_norm(&norm("layer_output_norm"), config.eps).await?,
            });
        }
        let positions = position_table(&config, file).await?;
        Ok(Self {
            token_embd: loader.embedding("token_embd.weight", d).await?,
            position_embd: loader.parameter(positions, [config.max_positions, d]),
            token_embd_norm: loader.layer_norm("token_embd_norm", config.eps).await?,
            layers,
            config,
            kernels: kernels.clone(),
        })
    }

    /// The encoder's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The vectors of texts, `[S, d_model]`.
    ///
    /// # Errors
    /// `Shape` for no texts, an empty text, one longer than there are positions, or a token id out of range.
    pub fn embed(&self, texts: &[&[u32]], pooling: Pooling, normalize: bool) -> Result<Tensor<2>> {
        self.check(texts)?;
        let batch = self.batch(texts)?;
        let rows = &batch.rows;
        let x = self.token_embd.forward(rows)?;
        let mut x = self.token_embd_norm.forward(x, &self.position_embd.val(), rows)?;
        for layer in &self.layers {
            let attended = self.attention(&batch, layer.qkv.forward(x.clone())?)?;
            x = layer.attn_output.add_to_and_norm(x, attended, &layer.attn_output_norm, rows)?;
            let hidden = layer.ffn_up.forward_gelu(x.clone())?;
            x = layer.ffn_down.add_to_and_norm(x, hidden, &layer.layer_output_norm, rows)?;
        }
        self.pool(&batch, x, pooling, normalize)
    }

    fn check(&self, texts: &[&[u32]]) -> Result<()> {
        let Config { vocab_size, max_positions, .. } = self.config;
        if texts.is_empty() {
            return Err(Error::shape("no texts: expected at least one"));
        }
        for (index, text) in texts.iter().enumerate() {
            if text.is_empty() || text.len() > max_positions {
                let found = text.len();
                return Err(Error::shape(format!("text {index}: {found} tokens, expected 1 to {max_positions}")));
            }
            if let Some(token) = text.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(Error::shape(format!("text {index}: token {token}, expected one below {vocab_size}")));
            }
        }
        Ok(())
    }

    fn batch(&self, texts: &[&[u32]]) -> Result<Batch> {
        let device = self.position_embd.device();
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if let Kernels::Burn = self.kernels {
            let mut words = Vec::with_capacity(4 * texts.len() * longest);
            for text in texts {
                let tokens = text.iter().copied().chain(std::iter::repeat(0)).take(longest);
                words.extend(tokens.enumerate().flat_map(|(position, token)| [token, position as u32, 0, 0]));
            }
            let rows = integers(&words, [texts.len() * longest, 4], &device);
            return Ok(Batch { rows, texts: Texts::Padded { lengths, longest } });
        }
        let count = lengths.iter().sum();
        let words = pack(texts, count).ok_or_else(|| Error::shape("texts of changing lengths"))?;
        let mut places = Vec::with_capacity(2 * texts.len());
        let mut start = 0;
        for length in &lengths {
            places.extend([start, *length as u32]);
            start += *length as u32;
        }
        let rows = integers(&words, [count, 4], &device);
        Ok(Batch { rows, texts: Texts::Packed(integers(&places, [texts.len(), 2], &device)) })
    }

    /// Of `qkv[M, 3 · d_model]`: `[M, d_model]`.
    fn attention(&self, batch: &Batch, qkv: Tensor<2>) -> Result<Tensor<2>> {
        let (d, heads) = (self.config.d_model, self.config.n_heads);
        let (lengths, longest) = match (&self.kernels, &batch.texts) {
            (Kernels::Own(launcher), _) => return launcher.attention_packed(&batch.rows, &qkv, heads),
            (Kernels::Burn, Texts::Padded { lengths, longest }) => (lengths, *longest),
            (Kernels::Burn, Texts::Packed(_)) => return Err(Error::shape("packed texts: expected padded ones")),
        };
        let size = lengths.len();
        let part = |at: usize| {
            let part = qkv.clone().narrow(1, at * d, d).reshape([size, longest, heads, d / heads]);
            part.swap_dims(1, 2)
        };
        let mask = (lengths.iter().any(|length| *length < longest)).then(|| {
            let mask = padding(lengths, longest, &qkv.device()).greater_elem(0.5);
            mask.reshape([size, 1, 1, longest]).expand([size, heads, longest, longest])
        });
        let y = attention(part(0), part(1), part(2), mask, None, Default::default());
        Ok(y.swap_dims(1, 2).reshape([size * longest, d]))
    }

    fn pool(&self, batch: &Batch, x: Tensor<2>, pooling: Pooling, normalize: bool) -> Result<Tensor<2>> {
        let (lengths, longest) = match (&self.kernels, &batch.texts) {
            (Kernels::Own(launcher), Texts::Packed(texts)) => {
                let rows = match pooling {
                    Pooling::Mean => Rows::Mean,
                    Pooling::Cls => Rows::First,
                    Pooling::LastToken => Rows::Last,
                };
                return launcher.pool(&x, texts, rows, normalize);
            }
            (_, Texts::Padded { lengths, longest }) => (lengths, *longest),
            _ => return Err(Error::shape("packed texts: expected padded ones")),
        };
        let (size, device) = (lengths.len(), x.device());
        let at = |row: &dyn Fn(usize) -> usize| {
            let rows: Vec<u32> = (0..size).map(|text| (text * longest + row(text)) as u32).collect();
            x.clone().select(0, column(&integers(&rows, [size, 1], &device), 0))
        };
        let vectors = match pooling {
            Pooling::Mean => {
                let padding = padding(lengths, longest, &device).reshape([size, longest, 1]);
                let kept = x.clone().reshape([size, longest, self.config.d_model]) * (-padding + 1.0);
                let counts: Vec<f32> = lengths.iter().map(|length| *length as f32).collect();
                kept.sum_dim(1).squeeze_dim(1) / Tensor::from_data(TensorData::new(counts, [size, 1]), &device)
            }
            Pooling::Cls => at(&|_| 0),
            Pooling::LastToken => at(&|text| lengths[text] - 1),
        };
        if !normalize {
            return Ok(vectors);
        }
        let length = vectors.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
        Ok(vectors / length)
    }
}

/// `[S, longest]`: 1 behind a text's end, 0 in it.
fn padding(lengths: &[usize], longest: usize, device: &Device) -> Tensor<2> {
    let of_text = |length: &usize| {
        let length = *length;
        (0..longest).map(move |position| if position < length { 0.0f32 } else { 1.0 })
    };
    let values: Vec<f32> = lengths.iter().flat_map(of_text).collect();
    Tensor::from_data(TensorData::new(values, [lengths.len(), longest]), device)
}
