//! The encoder as a plan: packed texts in, a vector a text out. Seven steps a layer.

use std::sync::Arc;

use super::config::{Config, Pooling};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Context;
use crate::kernels::attention_packed::AttentionPacked;
use crate::kernels::embed::Embed;
use crate::kernels::layer_norm::{LayerNorm, Sum};
use crate::kernels::matmul::{self, Matmul, MatmulBias};
use crate::kernels::pool::{Pool, Rows};
use crate::kernels::q8::{Activations, BLOCK};
use crate::models::weights::{Group, Loader, Matrix, Progress, TensorFile, Weights, upload_floats, upload_words};
use crate::plan::Builder;
use crate::profile::Profile;
use crate::tensor::Tensor;

/// Weight and bias of a layer norm, and what is added before it: by the norm, or, in halves, by the product.
#[derive(Debug)]
struct Norm {
    add: Tensor,
    weight: Tensor,
    bias: Tensor,
}

/// How long a plan of so many rows takes, in products of numbers that a multiprocessor makes in the time: its products with matrices
/// `[N, K]` of floats, what attention and norms take, 0.36 of products by all multiprocessors evenly, and something for each step. (The
/// two figures are fitted to plans of 44 to 88 texts of 128 tokens of all-MiniLM-L6-v2 on an H100.)
pub(crate) fn cost(profile: &Profile, rows: usize, matrices: &[[usize; 2]], layers: usize) -> Option<f64> {
    const BESIDE: f64 = 0.36;
    const OF_STEP: f64 = 1.1e6;
    const STEPS: f64 = 7.0;
    let of = |&[n, k]: &[usize; 2]| {
        let evenly = (rows * n * k) as f64 / matmul::MULTIPROCESSORS as f64;
        Some(matmul::cost(profile, [rows, n, k])? + BESIDE * evenly)
    };
    Some(matrices.iter().map(of).sum::<Option<f64>>()? + OF_STEP * STEPS * layers as f64)
}

/// A block's weights on the GPU.
#[derive(Debug)]
struct Layer {
    qkv: Group,
    qkv_bias: Tensor,
    attn_output: Group,
    /// With the bias of `attn_output`.
    attn_output_norm: Norm,
    ffn_up: Group,
    ffn_up_bias: Tensor,
    ffn_down: Group,
    /// With the bias of `ffn_down`.
    layer_output_norm: Norm,
}

/// An encoder's weights on the GPU.
#[derive(Debug)]
pub struct Bert {
    config: Config,
    embedding: Matrix,
    /// Adds the embeddings of positions and of segment 0.
    embedding_norm: Norm,
    layers: Vec<Layer>,
}

/// A plan's tensors that the host writes and reads.
#[derive(Debug)]
pub struct Ports {
    /// `[M, 4]`: see [`crate::kernels::packed`].
    pub rows: Tensor,
    /// `[S, 2]`: the first row and the number of rows of each text; zeros where there is none. In the same buffer, behind `rows`.
    pub texts: Tensor,
    /// `[S, d_model]`.
    pub vectors: Tensor,
}

/// What a plan computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Phase {
    /// M: rows of all texts together.
    pub rows: usize,
    /// S: texts.
    pub texts: usize,
    /// How rows become a vector.
    pub pooling: Pooling,
    /// Whether vectors are divided by their length.
    pub normalize: bool,
    /// Whether attention may round to f16, and what it, products and norms read is kept in it, where the device has it: the residual
    /// stream, too, is rounded and limited to ±65504 once a norm.
    pub f16: bool,
}

impl Bert {
    /// Loads the weights.
    ///
    /// # Errors
    /// `OutOfMemory`, or what reading gives.
    pub async fn load(
        context: &Context,
        config: Config,
        file: Arc<TensorFile>,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let (d, ff) = (config.d_model, config.d_ff);
        let positions = position_table(&config, &file).await?;
        let mut loader = Loader::new(context, Weights::Tensors(file), progress);
        let embedding = loader.single("token_embd.weight", config.vocab_size, d).await?;
        let embedding_norm = Norm {
            add: upload_floats(context, "position_embd", &positions, [config.max_positions, d])?,
            weight: loader.vector("token_embd_norm.weight", d).await?,
            bias: loader.vector("token_embd_norm.bias", d).await?,
        };
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            let name = |part: &str| format!("blk.{i}.{part}");
            let weight = |part: &str, rows: usize| (format!("blk.{i}.{part}.weight"), rows);
            let mut qkv_bias = Vec::with_capacity(3 * d);
            for part in ["attn_q.bias", "attn_k.bias", "attn_v.bias"] {
                qkv_bias.extend(loader.values(&name(part), d).await?.unwrap_or_default());
            }
            layers.push(Layer {
                qkv: loader.group(&[weight("attn_q", d), weight("attn_k", d), weight("attn_v", d)], d).await?,
                qkv_bias: upload_floats(context, &name("attn_qkv.bias"), &qkv_bias, [3 * d])?,
                attn_output: loader.group(&[weight("attn_output", d)], d).await?,
                attn_output_norm: norm(&mut loader, &name("attn_output"), &name("attn_output_norm"), d).await?,
                ffn_up: loader.group(&[weight("ffn_up", ff)], d).await?,
                ffn_up_bias: loader.vector(&name("ffn_up.bias"), ff).await?,
                ffn_down: loader.group(&[weight("ffn_down", d)], ff).await?,
                layer_output_norm: norm(&mut loader, &name("ffn_down"), &name("layer_output_norm"), d).await?,
            });
        }
        context.finish().await?;
        Ok(Self { config, embedding, embedding_norm, layers })
    }

    /// The encoder's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The format of the matrices.
    pub fn dtype(&self) -> DType {
        self.embedding.dtype
    }

    /// How long a plan of so many rows takes: see [`cost`]. `None` for weights and devices that nothing was measured of.
    pub(crate) fn cost(&self, profile: &Profile, rows: usize) -> Option<f64> {
        let groups =
            self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.attn_output, &layer.ffn_up, &layer.ffn_down]);
        let matrices: Vec<&Matrix> = groups.flatten().map(|(_, matrix)| matrix).collect();
        let plain = matrices.iter().all(|matrix| !matrix.dtype.is_quantized());
        let sizes: Vec<_> = matrices.iter().map(|matrix| [matrix.rows, matrix.cols]).collect();
        plain.then(|| cost(profile, rows, &sizes, self.layers.len())).flatten()
    }

    /// Writes the steps.
    ///
    /// # Errors
    /// `Shape` or `OutOfMemory` where an activation is beyond the device's limits.
    pub fn write(&self, builder: &mut Builder, context: &Context, phase: Phase) -> Result<Ports> {
        let Phase { rows: m, texts, pooling, normalize, f16 } = phase;
        let (d, ff) = (self.config.d_model, self.config.d_ff);
        // What products round their input to anyway, and what norms add to each other, in half the bytes.
        let halves = f16 && builder.profile().features.f16 && d.is_multiple_of(BLOCK);
        let offset = (16 * m as u64).next_multiple_of(u64::from(builder.profile().limits.min_storage_offset_alignment));
        let rows = upload_words(context, "rows and texts", &vec![0; offset as usize / 4 + 2 * texts], [m, 4])?;
        let texts = Tensor::new(rows.storage().clone(), offset, DType::U32, [texts, 2]);
        let x = builder.activation(DType::F32, [m, d]);
        let x_halves = halves.then(|| builder.activation(DType::F16, [m, d]));
        let x_input = x_halves.clone().map_or_else(|| Activations::F32(x.clone()), Activations::F16);
        for (first, part) in &self.embedding.parts {
            builder.step("token_embd", Embed { w: part.clone(), first: *first, ids: rows.clone(), y: x.clone() })?;
        }
        let mut residual = Residual { x, halves: x_halves, rows: rows.clone() };
        builder.step("token_embd_norm", self.norm(&self.embedding_norm, residual.floats(&self.embedding_norm)))?;
        for (i, layer) in self.layers.iter().enumerate() {
            let label = |part: &str| format!("blk.{i}/{part}");
            let qkv = builder.activation(if halves { DType::F16 } else { DType::F32 }, [m, 3 * d]);
            with_bias(builder, &label("attn_qkv"), &layer.qkv, &x_input, &qkv, &layer.qkv_bias, false)?;
            let attended = match halves {
                true => Activations::F16(builder.activation(DType::F16, [m, d])),
                false => Activations::F32(builder.activation(DType::F32, [m, d])),
            };
            builder.step(
                label("attention"),
                AttentionPacked { rows: rows.clone(), qkv, y: attended.clone(), heads: self.config.n_heads, f16 },
            )?;
            let norm = &layer.attn_output_norm;
            let sum = residual.add(builder, &label("attn_output"), &layer.attn_output, &attended, norm, false)?;
            builder.step(label("attn_output_norm"), self.norm(norm, sum))?;
            let halves = halves && ff.is_multiple_of(BLOCK);
            let hidden = builder.activation(if halves { DType::F16 } else { DType::F32 }, [m, ff]);
            with_bias(builder, &label("ffn_up"), &layer.ffn_up, &x_input, &hidden, &layer.ffn_up_bias, true)?;
            let hidden = if halves { Activations::F16(hidden) } else { Activations::F32(hidden) };
            let (norm, last) = (&layer.layer_output_norm, i + 1 == self.layers.len());
            let sum = residual.add(builder, &label("ffn_down"), &layer.ffn_down, &hidden, norm, last)?;
            builder.step(label("layer_output_norm"), self.norm(norm, sum))?;
        }
        let vectors = builder.activation(DType::F32, [texts.rows(), d]);
        let pooled = match pooling {
            Pooling::Mean => Rows::Mean,
            Pooling::Cls => Rows::First,
            Pooling::LastToken => Rows::Last,
        };
        builder
            .step("pool", Pool { x: residual.x, texts: texts.clone(), y: vectors.clone(), rows: pooled, normalize })?;
        builder.keep(&vectors);
        Ok(Ports { rows, texts, vectors })
    }

    fn norm(&self, norm: &Norm, sum: Sum) -> LayerNorm {
        LayerNorm { sum, weight: norm.weight.clone(), bias: norm.bias.clone(), eps: self.config.eps }
    }
}

/// The rows that blocks add to.
struct Residual {
    /// `[M, d_model]` in f32; where there are halves, the embeddings and then the last norm's result.
    x: Tensor,
    /// The same in f16, from the norm of the embeddings on.
    halves: Option<Tensor>,
    /// The texts' rows.
    rows: Tensor,
}

impl Residual {
    /// What a norm takes in floats.
    fn floats(&self, norm: &Norm) -> Sum {
        let Self { x, halves, rows } = self;
        Sum::Floats { x: x.clone(), add: norm.add.clone(), rows: rows.clone(), halves: halves.clone() }
    }

    /// A product to be added, and what the norm behind it takes; the last one gives floats as well.
    fn add(
        &mut self,
        builder: &mut Builder,
        label: &str,
        group: &Group,
        input: &Activations,
        norm: &Norm,
        last: bool,
    ) -> Result<Sum> {
        let Some(halves) = &self.halves else {
            products(group, input, &self.x, true).try_for_each(|matmul| builder.step(label, matmul))?;
            return Ok(self.floats(norm));
        };
        let y = builder.activation(DType::F16, halves.shape());
        let wrong = || Error::shape(format!("{label}.bias: found shape {:?}, expected one row", norm.add.shape()));
        let bias = norm.add.reshape([norm.add.cols()]).ok_or_else(wrong)?;
        with_bias(builder, label, group, input, &y, &bias, false)?;
        let floats = last.then(|| builder.activation(DType::F32, halves.shape()));
        if let Some(floats) = &floats {
            self.x = floats.clone();
        }
        Ok(Sum::Halves { x: halves.clone(), y, floats })
    }
}

async fn norm(loader: &mut Loader<'_>, added: &str, norm: &str, d: usize) -> Result<Norm> {
    let add = loader.vector(&format!("{added}.bias"), d).await?;
    Ok(Norm {
        add: add.reshape([1, d]).ok_or_else(|| Error::shape(format!("{added}.bias: expected {d} values")))?,
        weight: loader.vector(&format!("{norm}.weight"), d).await?,
        bias: loader.vector(&format!("{norm}.bias"), d).await?,
    })
}

/// The embeddings of positions, `[max_positions, d_model]`, that of segment 0 added to each: every text is of segment 0.
pub(super) async fn position_table(config: &Config, file: &TensorFile) -> Result<Vec<f32>> {
    let mut table = file.values("position_embd.weight").await?;
    let types = file.values("token_types.weight").await?;
    for row in table.chunks_exact_mut(config.d_model) {
        row.iter_mut().zip(&types).for_each(|(value, added)| *value += added);
    }
    Ok(table)
}

/// `y = x · wᵀ + bias`, through GELU where asked for.
fn with_bias(
    builder: &mut Builder,
    label: &str,
    group: &Group,
    x: &Activations,
    y: &Tensor,
    bias: &Tensor,
    gelu: bool,
) -> Result<()> {
    products(group, x, y, false)
        .try_for_each(|matmul| builder.step(label, MatmulBias { matmul, bias: bias.clone(), gelu }))
}

/// A product for each part of the matrices.
fn products<'a>(
    group: &'a Group,
    x: &'a Activations,
    y: &'a Tensor,
    accumulate: bool,
) -> impl Iterator<Item = Matmul> + 'a {
    group.iter().flat_map(move |(start, matrix)| {
        matrix.parts.iter().map(move |(first, part)| Matmul {
            w: part.clone(),
            x: x.clone(),
            y: y.clone(),
            y_offset: start + first,
            accumulate,
        })
    })
}

/// The most rows of a plan whose activations each fit a binding.
pub fn most_rows(config: &Config, profile: &Profile) -> usize {
    let widest = config.d_ff.max(3 * config.d_model) as u64 * 4;
    let limits = &profile.limits;
    // The attention's grid has 64 rows a workgroup.
    let by_grid = 64 * limits.max_workgroups_per_dimension as usize;
    ((limits.max_binding_bytes.min(limits.max_buffer_bytes) / widest) as usize).min(by_grid)
}
