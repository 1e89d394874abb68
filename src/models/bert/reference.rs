//! The encoder in plain Rust on the CPU: what plans are held against. It shares no code with them but the configuration,
//! the names of tensors and the dequantisation, computes in f64, and is written to be read.

use super::config::{Config, Pooling};
use crate::error::{Error, Result};
use crate::models::weights::TensorFile;

/// `y = x · weightᵀ + bias`; `weight` is `[rows, cols]`.
struct Linear {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Layer {
    q: Linear,
    k: Linear,
    v: Linear,
    attn_output: Linear,
    attn_output_norm: Norm,
    ffn_up: Linear,
    ffn_down: Linear,
    layer_output_norm: Norm,
}

/// A BERT encoder on the CPU.
pub struct Reference {
    config: Config,
    tokens: Vec<f32>,
    positions: Vec<f32>,
    types: Vec<f32>,
    embedding_norm: Norm,
    layers: Vec<Layer>,
}

impl Reference {
    /// Loads the tensors, as f32.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn load(config: Config, file: &TensorFile) -> Result<Self> {
        let mut layers = Vec::new();
        for i in 0..config.n_layers {
            layers.push(Layer {
                q: linear(file, &format!("blk.{i}.attn_q")).await?,
                k: linear(file, &format!("blk.{i}.attn_k")).await?,
                v: linear(file, &format!("blk.{i}.attn_v")).await?,
                attn_output: linear(file, &format!("blk.{i}.attn_output")).await?,
                attn_output_norm: norm(file, &format!("blk.{i}.attn_output_norm")).await?,
                ffn_up: linear(file, &format!("blk.{i}.ffn_up")).await?,
                ffn_down: linear(file, &format!("blk.{i}.ffn_down")).await?,
                layer_output_norm: norm(file, &format!("blk.{i}.layer_output_norm")).await?,
            });
        }
        Ok(Self {
            tokens: file.values("token_embd.weight").await?,
            positions: file.values("position_embd.weight").await?,
            types: file.values("token_types.weight").await?,
            embedding_norm: norm(file, "token_embd_norm").await?,
            layers,
            config,
        })
    }

    /// The last layer's rows of a text, `[tokens, d_model]`.
    ///
    /// # Errors
    /// `Shape` for no tokens, a token id out of range, or more tokens than positions.
    pub fn forward(&self, tokens: &[u32]) -> Result<Vec<f64>> {
        let config = &self.config;
        let d = config.d_model;
        if tokens.is_empty() || tokens.len() > config.max_positions {
            let found = tokens.len();
            return Err(Error::shape(format!("{found} tokens: expected 1 to {}", config.max_positions)));
        }
        let mut x = Vec::with_capacity(tokens.len() * d);
        for (position, &token) in tokens.iter().enumerate() {
            let token = token as usize;
            if token >= config.vocab_size {
                return Err(Error::shape(format!("token {token}: expected one below {}", config.vocab_size)));
            }
            for i in 0..d {
                let sum = [self.tokens[token * d + i], self.positions[position * d + i], self.types[i]];
                x.push(sum.into_iter().map(f64::from).sum());
            }
        }
        let mut x = self.norm(&x, &self.embedding_norm);
        for layer in &self.layers {
            let attended = self.attention(&apply(&x, &layer.q, d), &apply(&x, &layer.k, d), &apply(&x, &layer.v, d));
            let y = apply(&attended, &layer.attn_output, d);
            x = self.norm(&sum(&x, &y), &layer.attn_output_norm);
            let mut hidden = apply(&x, &layer.ffn_up, d);
            hidden.iter_mut().for_each(|v| *v *= 0.5 * (1.0 + libm::erf(*v / std::f64::consts::SQRT_2)));
            let y = apply(&hidden, &layer.ffn_down, config.d_ff);
            x = self.norm(&sum(&x, &y), &layer.layer_output_norm);
        }
        Ok(x)
    }

    /// The vector of a text.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn embed(&self, tokens: &[u32], pooling: Pooling, normalize: bool) -> Result<Vec<f32>> {
        let d = self.config.d_model;
        let rows = self.forward(tokens)?;
        let last = rows.len() - d;
        let mut vector: Vec<f64> = match pooling {
            Pooling::Mean => {
                (0..d).map(|i| rows.iter().skip(i).step_by(d).sum::<f64>() / tokens.len() as f64).collect()
            }
            Pooling::Cls => rows[..d].to_vec(),
            Pooling::LastToken => rows[last..].to_vec(),
        };
        if normalize {
            let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
            vector.iter_mut().for_each(|v| *v /= length);
        }
        Ok(vector.into_iter().map(|v| v as f32).collect())
    }

    fn norm(&self, x: &[f64], norm: &Norm) -> Vec<f64> {
        let d = self.config.d_model;
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(d) {
            let mean = row.iter().sum::<f64>() / d as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / d as f64;
            let deviation = (variance + f64::from(self.config.eps)).sqrt();
            let parts = norm.weight.iter().zip(&norm.bias);
            y.extend(row.iter().zip(parts).map(|(v, (&w, &b))| (v - mean) / deviation * f64::from(w) + f64::from(b)));
        }
        y
    }

    /// `softmax(q · kᵀ / sqrt(head_dim)) · v`, head by head; all are `[tokens, d_model]`.
    fn attention(&self, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
        let (d, head_dim) = (self.config.d_model, self.config.head_dim());
        let mut out = vec![0.0; q.len()];
        for (token, q) in q.chunks_exact(d).enumerate() {
            for start in (0..d).step_by(head_dim) {
                let head = start..start + head_dim;
                let dot = |k: &[f64]| q[head.clone()].iter().zip(&k[head.clone()]).map(|(q, k)| q * k).sum::<f64>();
                let scores: Vec<f64> = k.chunks_exact(d).map(|k| dot(k) / (head_dim as f64).sqrt()).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (weight, v) in weights.iter().zip(v.chunks_exact(d)) {
                    for i in head.clone() {
                        out[token * d + i] += weight / total * v[i];
                    }
                }
            }
        }
        out
    }
}

async fn linear(file: &TensorFile, name: &str) -> Result<Linear> {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    Ok(Linear { weight: file.values(&weight).await?, bias: file.values(&bias).await? })
}

async fn norm(file: &TensorFile, name: &str) -> Result<Norm> {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    Ok(Norm { weight: file.values(&weight).await?, bias: file.values(&bias).await? })
}

fn apply(x: &[f64], linear: &Linear, cols: usize) -> Vec<f64> {
    let row = |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum::<f64>();
    let of_token = |x: &[f64]| -> Vec<f64> {
        let rows = linear.weight.chunks_exact(cols).zip(&linear.bias);
        rows.map(|(w, &bias)| row(x, w) + f64::from(bias)).collect()
    };
    x.chunks_exact(cols).flat_map(of_token).collect()
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}
