//! The hand-written kernels on Burn's tensors: Burn's runtime shares this crate's device, and launches them among its own.
//!
//! ```no_run
//! # pollster::block_on(async {
//! use anygpu::gpu::Adapter;
//! use anygpu::models::burn_kernels;
//! use burn::tensor::Tensor;
//!
//! let gpu = burn_kernels::open(&Adapter::request(&Default::default()).await?).await?;
//! let x = Tensor::<2>::from_floats([[3.0, 4.0, 0.0, 0.0]], &gpu.device);
//! let y = gpu.launcher.rms_norm(&x, &Tensor::ones([4], &gpu.device), 1e-5)?;
//! println!("{y}");
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

mod launch;
#[cfg(all(test, feature = "burn"))]
pub(crate) mod testing;

use std::sync::Arc;

use burn::tensor::wgpu::{WgpuSetup, wgpu};
use burn::tensor::{Device, Int, Tensor as BurnTensor};

pub use launch::Launcher;
use launch::Operands;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{Adapter, Context};
use crate::kernels::attention::Attention;
use crate::kernels::attention_decode::{AttentionDecode, Output};
use crate::kernels::attention_packed::AttentionPacked;
use crate::kernels::attention_prefill::AttentionPrefill;
use crate::kernels::cache::{CacheShape, Heads, Shard};
use crate::kernels::embed::Embed;
use crate::kernels::layer_norm::{LayerNorm, Sum};
use crate::kernels::matmul::{Matmul, MatmulBias};
use crate::kernels::matvec::{MAX_COLUMNS, Matvec};
use crate::kernels::normed::Normed;
use crate::kernels::pool::{Pool, Rows};
use crate::kernels::q8::{Activations, BLOCK};
use crate::kernels::rms_norm::RmsNorm;
use crate::kernels::rope_cache::RopeCache;
use crate::kernels::swiglu::Swiglu;
use crate::layout;
use crate::rope::Pairing;
use crate::tensor::Tensor;

/// A device that Burn and this crate share.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// The device as this crate knows it.
    pub context: Context,
    /// The device as Burn knows it.
    pub device: Device,
    /// Launches this crate's kernels on Burn's tensors of the device.
    pub launcher: Arc<Launcher>,
}

/// Opens an adapter's device for both.
///
/// # Errors
/// `Adapter` where the driver or Burn's runtime refuses.
pub async fn open(adapter: &Adapter) -> Result<Gpu> {
    // The runtime takes these for granted where the adapter has them.
    let besides = wgpu::Features::SHADER_INT64
        | wgpu::Features::SHADER_F64
        | wgpu::Features::SHADER_FLOAT32_ATOMIC
        | wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY;
    let context = Context::open_with(adapter, besides).await?;
    let setup = WgpuSetup {
        instance: adapter.instance.clone(),
        adapter: adapter.raw.clone(),
        device: context.device().clone(),
        queue: context.queue().clone(),
        backend: adapter.raw.get_info().backend,
    };
    let device = Device::wgpu_options().setup(setup).init();
    context.watch();
    let device = device.map_err(|error| Error::adapter(format!("Burn's runtime: {error}")))?;
    let launcher = Arc::new(Launcher::new(context.profile().clone()));
    Ok(Gpu { context, device, launcher })
}

/// Whose kernels a module runs on.
#[derive(Clone, Debug, Default)]
pub enum Kernels {
    /// Burn's: on any device, and differentiable.
    #[default]
    Burn,
    /// This crate's, on the device of a [`Gpu`], without autodiff.
    Own(Arc<Launcher>),
}

impl Gpu {
    /// This crate's kernels, as they suit the device.
    pub fn kernels(&self) -> Kernels {
        Kernels::Own(self.launcher.clone())
    }

    /// The same in f32 throughout, but for a cache of keys and values: what others are checked against.
    pub fn plain_kernels(&self) -> Kernels {
        let mut profile = self.launcher.profile().clone();
        profile.features.f16 = false;
        profile.features.subgroups = false;
        profile.features.integer_dot = false;
        profile.cooperative_matrices.clear();
        Kernels::Own(Arc::new(Launcher::new(profile)))
    }
}

/// A matrix in a weight format: `[rows, cols]`, packed row by row as [`crate::layout`] says.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The bytes, four a word.
    pub words: BurnTensor<1, Int>,
    /// Weight format.
    pub dtype: DType,
    /// Rows.
    pub rows: usize,
    /// Columns, without padding.
    pub cols: usize,
}

impl Packed {
    fn operand(&self, operands: &mut Operands) -> Result<Tensor> {
        operands.words(&self.words, self.dtype, &[self.rows, layout::padded_cols(self.dtype, self.cols)])
    }
}

/// Keys and values of a layer in pages, as f16.
#[derive(Clone, Debug)]
pub struct LayerCache {
    /// `[pages · kv_heads · PAGE · head_dim / 2]`: words of two f16.
    pub k: BurnTensor<1, Int>,
    /// As `k`.
    pub v: BurnTensor<1, Int>,
}

/// What attention with a cache needs besides queries, keys and values.
#[derive(Clone, Debug)]
pub struct Paged<'a> {
    /// `[M, 4]`: token, slot, position, active.
    pub rows: &'a BurnTensor<2, Int>,
    /// `[256 + ⌈n_ctx / 256⌉ · dim]`: see [`RopeCache::rope`].
    pub rope: &'a BurnTensor<3>,
    /// `[1, pages]`.
    pub page_table: &'a BurnTensor<2, Int>,
    /// The layer's cache, which takes the rows' keys and values.
    pub cache: &'a LayerCache,
    /// The layer's heads.
    pub heads: Heads,
    /// Which two elements turn together.
    pub pairing: Pairing,
    /// Positions up to and with that of the last row.
    pub context: usize,
}

impl Launcher {
    /// `y[i] = w[ids[i, 0]]`: rows of a table; `ids[M, stride]`.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn embed(&self, w: &Packed, ids: &BurnTensor<2, Int>) -> Result<BurnTensor<2>> {
        let mut operands = Operands::default();
        let [m, stride] = ids.dims();
        let w_operand = w.operand(&mut operands)?;
        let ids = operands.words(ids, DType::U32, &[m, stride])?;
        let y = operands.output([m, w.cols])?;
        self.launch(&Embed { w: w_operand, first: 0, ids, y: y.clone() }, &operands, 0)?;
        operands.take(&y)
    }

    /// `y[M, Σ rows] = x[M, K] · wᵀ (+ bias)`, through GELU where asked for; the matrices' outputs lie side by side.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn linear(
        &self,
        matrices: &[Packed],
        x: &BurnTensor<2>,
        bias: Option<&BurnTensor<1>>,
        gelu: bool,
    ) -> Result<BurnTensor<2>> {
        let mut operands = Operands::default();
        let x = operands.floats(x)?;
        let bias = bias.map(|bias| operands.floats(bias)).transpose()?;
        let y = operands.output([x.rows(), matrices.iter().map(|w| w.rows).sum()])?;
        self.products(matrices, &mut operands, &x, &y, false, bias.map(|bias| (bias, gelu)))?;
        operands.take(&y)
    }

    /// `y[M, rows] + x[M, K] · wᵀ`.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn add_linear(&self, matrices: &[Packed], x: &BurnTensor<2>, y: BurnTensor<2>) -> Result<BurnTensor<2>> {
        let mut operands = Operands::default();
        let x = operands.floats(x)?;
        let y = operands.taken(y)?;
        self.products(matrices, &mut operands, &x, &y, true, None)?;
        operands.take(&y)
    }

    fn products(
        &self,
        matrices: &[Packed],
        operands: &mut Operands,
        x: &Tensor,
        y: &Tensor,
        accumulate: bool,
        bias: Option<(Tensor, bool)>,
    ) -> Result<()> {
        let mut y_offset = 0;
        for matrix in matrices {
            let w = matrix.operand(operands)?;
            let (x, y) = (Activations::F32(x.clone()), y.clone());
            match &bias {
                Some((bias, gelu)) => {
                    let matmul = Matmul { w, x, y, y_offset, accumulate };
                    self.launch(&MatmulBias { matmul, bias: bias.clone(), gelu: *gelu }, operands, 0)?;
                }
                None if y.rows() <= MAX_COLUMNS => {
                    self.launch(&Matvec { w, x: Normed::from(x), y, y_offset, accumulate }, operands, 0)?;
                }
                None => self.launch(&Matmul { w, x, y, y_offset, accumulate }, operands, 0)?,
            }
            y_offset += matrix.rows;
        }
        Ok(())
    }

    /// `x / sqrt(mean(x²) + eps) · weight` of every row; `x[M, K]`, K a multiple of 4.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn rms_norm(&self, x: &BurnTensor<2>, weight: &BurnTensor<1>, eps: f32) -> Result<BurnTensor<2>> {
        let mut operands = Operands::default();
        let (x, weight) = (operands.floats(x)?, operands.floats(weight)?);
        let y = operands.output([x.rows(), x.cols()])?;
        self.launch(&RmsNorm { x, weight, y: Activations::F32(y.clone()), eps }, &operands, 0)?;
        operands.take(&y)
    }

    /// `(v - mean) / sqrt(variance + eps) · weight + bias` of every row, `v = x[m] + add[p]`: see [`LayerNorm`].
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn layer_norm(
        &self,
        x: BurnTensor<2>,
        add: &BurnTensor<2>,
        rows: &BurnTensor<2, Int>,
        weight: &BurnTensor<1>,
        bias: &BurnTensor<1>,
        eps: f32,
    ) -> Result<BurnTensor<2>> {
        let mut operands = Operands::default();
        let add = operands.floats(add)?;
        let rows = operands.words(rows, DType::U32, &rows.dims())?;
        let (weight, bias) = (operands.floats(weight)?, operands.floats(bias)?);
        let x = operands.taken(x)?;
        let sum = Sum::Floats { x: x.clone(), add, rows, halves: None };
        self.launch(&LayerNorm { sum, weight, bias, eps }, &operands, 0)?;
        operands.take(&x)
    }

    /// Attention within packed texts: `qkv[M, 3 · d]` to `[M, d]`, see [`AttentionPacked`]. In f32.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn attention_packed(
        &self,
        rows: &BurnTensor<2, Int>,
        qkv: &BurnTensor<2>,
        heads: usize,
    ) -> Result<BurnTensor<2>> {
        let mut operands = Operands::default();
        let rows = operands.words(rows, DType::U32, &rows.dims())?;
        let qkv = operands.floats(qkv)?;
        let y = operands.output([qkv.rows(), qkv.cols() / 3])?;
        let whole = Activations::F32(y.clone());
        self.launch(&AttentionPacked { rows, qkv, y: whole, heads, f16: false }, &operands, 0)?;
        operands.take(&y)
    }

    /// A vector for each of `texts[S, 2]`, first row and rows: see [`Pool`].
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn pool(
        &self,
        x: &BurnTensor<2>,
        texts: &BurnTensor<2, Int>,
        rows: Rows,
        normalize: bool,
    ) -> Result<BurnTensor<2>> {
        let mut operands = Operands::default();
        let x = operands.floats(x)?;
        let texts = operands.words(texts, DType::U32, &texts.dims())?;
        let y = operands.output([texts.rows(), x.cols()])?;
        self.launch(&Pool { x, texts, y: y.clone(), rows, normalize }, &operands, 0)?;
        operands.take(&y)
    }

    /// `silu(gate) · up` of `x[M, 2 · K]`, gate before up; K a multiple of 4.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn swiglu(&self, x: &BurnTensor<2>) -> Result<BurnTensor<2>> {
        let mut operands = Operands::default();
        let x = operands.floats(x)?;
        let y = operands.output([x.rows(), x.cols() / 2])?;
        self.launch(&Swiglu { x, y: Activations::F32(y.clone()) }, &operands, 0)?;
        operands.take(&y)
    }

    /// Turns queries and keys of `qkv[M, (H + 2 KV) · head_dim]` by their positions, puts keys and values into the cache, and
    /// attends to it: `[M, H · head_dim]`.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn rope_attention(&self, qkv: BurnTensor<2>, paged: &Paged<'_>) -> Result<BurnTensor<2>> {
        let Paged { heads, pairing, context, .. } = *paged;
        let mut operands = Operands::default();
        let pages = paged.page_table.dims()[1];
        let words = CacheShape { pages, heads: heads.kv_heads, head_dim: heads.head_dim }.words();
        let shard = Shard {
            k: operands.words(&paged.cache.k, DType::U32, &words)?,
            v: operands.words(&paged.cache.v, DType::U32, &words)?,
            kv_start: 0,
        };
        let rope = operands.floats(paged.rope)?;
        let attention = Attention {
            rows: operands.words(paged.rows, DType::U32, &paged.rows.dims())?,
            page_table: operands.words(paged.page_table, DType::U32, &paged.page_table.dims())?,
            qkv: operands.taken(qkv)?,
            shard,
            heads,
            scale: 1.0 / (heads.head_dim as f32).sqrt(),
        };
        let y = operands.output([attention.count(), heads.heads * heads.head_dim])?;
        let whole = Activations::F32(y.clone());
        if attention.count() == 1 && heads.head_dim.is_multiple_of(BLOCK) {
            let kernel = AttentionDecode { attention, rope, pairing, output: Output::Whole(whole) };
            self.launch(&kernel, &operands, context)?;
            return operands.take(&y);
        }
        let Attention { qkv, rows, page_table, shard, .. } = attention.clone();
        let turn = RopeCache { qkv, rows, rope, page_table, shard, heads, pairing, turn_queries: true };
        self.launch(&turn, &operands, context)?;
        self.launch(&AttentionPrefill { attention, y: whole, f16: false }, &operands, context)?;
        operands.take(&y)
    }
}
