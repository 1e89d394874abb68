//! [`BurnEmbedder`]: texts to vectors as [`super::Embedder`] does, computed by the Burn module.
//!
//! ```no_run
//! # pollster::block_on(async {
//! use anygpu::embed::burn::BurnEmbedder;
//! use anygpu::embed::{LoadOptions, ModelFiles, TextOptions};
//! use anygpu::gpu::Adapter;
//! use anygpu::models::burn_kernels;
//!
//! let gpu = burn_kernels::open(&Adapter::request(&Default::default()).await?).await?;
//! let files = ModelFiles::open("all-MiniLM-L6-v2")?;
//! let mut embedder = BurnEmbedder::load(&gpu, gpu.kernels(), files, &LoadOptions::default()).await?;
//! let vectors = embedder.embed(&["a cat sits", "ein Hund bellt"], &TextOptions::default()).await?;
//! assert_eq!(vectors[0].len(), embedder.reader().dimensions());
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

#[cfg(all(test, feature = "burn"))]
mod tests;

use ::burn::tensor::Tensor;

use super::packing::{Padding, batches};
use super::reader::Reader;
use super::stream::{self, Compute, Input, Pending, VectorStream};
use super::{LoadOptions, ModelFiles, TextOptions};
use crate::error::{Error, Result};
use crate::gpu::Context;
use crate::models::bert::burn::Bert;
use crate::models::bert::plan::most_rows;
use crate::models::burn_kernels::{Gpu, Kernels};

/// An encoder as a Burn module on a device that Burn and this crate share, with its tokenizer.
pub struct BurnEmbedder {
    context: Context,
    bert: Bert,
    kernels: Kernels,
    reader: Reader,
}

impl BurnEmbedder {
    /// Loads a model's files onto a device, to run on these kernels.
    ///
    /// # Errors
    /// `Format`, `Unsupported` or `Tokenizer` for files that cannot be loaded, `Shape` for options that do not fit them,
    /// `OutOfMemory` where they do not fit the device.
    pub async fn load(gpu: &Gpu, kernels: Kernels, files: ModelFiles, options: &LoadOptions) -> Result<Self> {
        let read = files.read(options.dtype).await?;
        let mut most = most_rows(&read.config, gpu.context.profile());
        if let Kernels::Burn = kernels {
            most = most.min(most_padded(read.config.n_heads, gpu.context.profile().limits.max_binding_bytes));
        }
        let (reader, tensors) = Reader::new(read, options, most)?;
        let bert = Bert::load(reader.config().clone(), &tensors, &gpu.device, &kernels).await?;
        gpu.context.check()?;
        Ok(Self { context: gpu.context.clone(), bert, kernels, reader })
    }

    /// The device as this crate knows it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whose kernels it runs on.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// How texts are read.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The vectors of texts, in their order.
    ///
    /// # Errors
    /// `Tokenizer` for a text that cannot be encoded; what the device reports.
    pub async fn embed<T: AsRef<str> + Sync>(&mut self, texts: &[T], options: &TextOptions) -> Result<Vec<Vec<f32>>> {
        self.stream(texts, options).all(texts.len()).await
    }

    /// The vectors of texts as they are computed.
    pub fn stream<'a, T: AsRef<str>>(&'a mut self, texts: &'a [T], options: &TextOptions) -> VectorStream<'a> {
        stream::run(self, Input::texts(texts, options))
    }
}

/// The most rows of padded texts: Burn's attention keeps a score for each head, row and position that the row sees, of which
/// there are as many as the batch has rows at most.
fn most_padded(heads: usize, binding_bytes: u64) -> usize {
    (binding_bytes / 4 / heads.max(1) as u64).isqrt() as usize
}

impl Compute for BurnEmbedder {
    fn reader(&self) -> &Reader {
        &self.reader
    }

    fn batches(&self, lengths: &[usize]) -> Vec<usize> {
        let padding = match self.kernels {
            Kernels::Burn => Padding::Longest,
            Kernels::Own(_) => Padding::None,
        };
        batches(lengths, self.reader.batch_tokens(), padding)
    }

    fn submit(&mut self, parts: &[&[u32]]) -> Result<Pending> {
        let vectors = self.bert.embed(parts, self.reader.pooling(), self.reader.is_normalized())?;
        let context = self.context.clone();
        Ok(Box::pin(async move {
            let values = floats(vectors).await;
            // The device's own error says more than that its values did not come.
            context.check()?;
            values
        }))
    }
}

/// A tensor's values on the host, without blocking.
async fn floats(tensor: Tensor<2>) -> Result<Vec<f32>> {
    let failed = |error: &dyn std::fmt::Debug| Error::adapter(format!("Burn's runtime: {error:?}"));
    let data = tensor.into_data_async().await.map_err(|error| failed(&error))?;
    data.try_into_vec().map_err(|error| failed(&error))
}
