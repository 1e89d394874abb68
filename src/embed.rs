//! [`Embedder`]: texts to vectors, any number and length of them.
//!
//! ```no_run
//! # pollster::block_on(async {
//! use anygpu::embed::{Embedder, LoadOptions, ModelFiles, TextOptions};
//! use anygpu::gpu::{Adapter, Context};
//!
//! let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
//! let files = ModelFiles::open("all-MiniLM-L6-v2")?;
//! let mut embedder = Embedder::load(&context, files, &LoadOptions::default(), |_| {}).await?;
//! let vectors = embedder.embed(&["a cat sits", "ein Hund bellt"], &TextOptions::default()).await?;
//! assert_eq!(vectors[0].len(), embedder.dimensions());
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

#[cfg(feature = "burn-inference")]
pub mod burn;
#[cfg(feature = "burn")]
pub mod burn_head;
mod files;
mod head;
mod packing;
mod reader;
mod stream;

#[cfg(all(test, not(target_arch = "wasm32")))]
mod minilm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use files::ModelFiles;
pub use head::Head;
pub use reader::Reader;
pub use stream::{Embedded, VectorStream};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::source::MaybeSend;
use crate::generate::LoadProgress;
use crate::gpu::pipeline::Uncompiled;
use crate::gpu::{Buffer, Context};
use crate::models::bert::plan::{Bert, Phase, Ports, most_rows};
use crate::models::bert::{Config, Pooling};
use crate::plan::memory::Scratch;
use crate::plan::{Builder, Plan};
use crate::profile::Profile;
use crate::tensor::{Storage, Tensor};
use crate::tokenizer::Tokenizer;
use packing::{Padding, batches, bucket, fastest, sizes};
use stream::{Compute, Pending};

/// What is chosen at load.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// The format that matrices become: F32, F16, Q8_0 or another that divides the model's width; without it the file's.
    pub dtype: Option<DType>,
    /// How rows become a vector; without it what the files say, or the mean.
    pub pooling: Option<Pooling>,
    /// Whether vectors have length 1; without it what the files say, or yes.
    pub normalize: Option<bool>,
    /// Tokens of a text, those that start and end it among them; without it what the files say.
    pub max_tokens: Option<usize>,
    /// The most tokens that are computed together. More use a large GPU better and take more memory.
    pub batch_tokens: usize,
    /// Everything plainly in f32: the path that others are checked against.
    pub plain: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { dtype: None, pooling: None, normalize: None, max_tokens: None, batch_tokens: 12_288, plain: false }
    }
}

/// What happens to a text of more tokens than fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Long {
    /// Its beginning counts, as in sentence-transformers.
    #[default]
    Truncate,
    /// It is cut into parts; its vector is the mean of theirs, weighted by their tokens, with length 1 where vectors have it.
    Split,
}

/// How texts are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextOptions {
    /// What is put in front of every text, such as `query: ` for E5; see also [`Embedder::prompts`].
    pub prefix: String,
    /// What happens to long texts.
    pub long: Long,
}

/// Plans kept for use again.
const KEPT_PLANS: usize = 6;

/// A plan with its size, and the buffers that the host writes.
struct Ready {
    phase: Phase,
    plan: Plan,
    ports: Ports,
}

/// An encoder on a device, with its tokenizer.
pub struct Embedder {
    context: Context,
    bert: Bert,
    reader: Reader,
    plain: bool,
    weight_bytes: u64,
    /// How long plans take by their rows, where anything is known of it.
    costs: Option<BTreeMap<usize, f64>>,
    /// The one used last at the end.
    plans: Vec<Ready>,
    /// Activations of all plans but the vectors: what one leaves there no other reads.
    scratch: Scratch,
}

impl Embedder {
    /// Loads a model's files onto a device. `progress` is told the bytes that are there.
    ///
    /// # Errors
    /// `Format`, `Unsupported` or `Tokenizer` for files that cannot be loaded, `Shape` for options that do not fit them,
    /// `OutOfMemory` where they do not fit the device.
    pub async fn load(
        context: &Context,
        files: ModelFiles,
        options: &LoadOptions,
        mut progress: impl FnMut(LoadProgress) + MaybeSend,
    ) -> Result<Self> {
        let read = files.read(options.dtype).await?;
        let most = most_rows(&read.config, context.profile());
        let (reader, tensors) = Reader::new(read, options, most)?;
        let before = context.memory().current_bytes();
        let total_bytes = tensors.bytes();
        let mut report = |loaded_bytes| progress(LoadProgress { loaded_bytes, total_bytes });
        let bert = Bert::load(context, reader.config().clone(), Arc::new(tensors), &mut report).await?;
        let cost = |rows: usize| Some((rows, bert.cost(context.profile(), rows)?));
        let costs = (!options.plain).then(|| sizes(reader.batch_tokens()).map(cost).collect()).flatten();
        Ok(Self {
            context: context.clone(),
            costs,
            bert,
            reader,
            plain: options.plain,
            weight_bytes: context.memory().current_bytes() - before,
            plans: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// How texts are read.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The model's numbers.
    pub fn config(&self) -> &Config {
        self.reader.config()
    }

    /// Numbers of a vector.
    pub fn dimensions(&self) -> usize {
        self.reader.dimensions()
    }

    /// Tokens of the longest text that is not cut, those that start and end it among them.
    pub fn max_tokens(&self) -> usize {
        self.reader.max_tokens()
    }

    /// The format of the matrices.
    pub fn dtype(&self) -> DType {
        self.bert.dtype()
    }

    /// The most tokens that are computed together.
    pub fn batch_tokens(&self) -> usize {
        self.reader.batch_tokens()
    }

    /// How many texts of so many tokens, the shortest first, are computed together, batch by batch.
    pub fn batches(&self, tokens: &[usize]) -> Vec<usize> {
        let most = self.batch_tokens();
        match &self.costs {
            Some(costs) => fastest(tokens, most, |rows| costs.get(&rows).copied().unwrap_or(f64::INFINITY)),
            None => batches(tokens, most, Padding::None),
        }
    }

    /// How rows become a vector.
    pub fn pooling(&self) -> Pooling {
        self.reader.pooling()
    }

    /// Whether vectors have length 1.
    pub fn is_normalized(&self) -> bool {
        self.reader.is_normalized()
    }

    /// Bytes of the weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// What the model's files want in front of texts, by name, such as `query` and `passage`.
    pub fn prompts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reader.prompts()
    }

    /// The tokenizer of the files.
    ///
    /// # Errors
    /// `Tokenizer` where there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.reader.tokenizer()
    }

    /// The vectors of texts, in their order.
    ///
    /// # Errors
    /// `Tokenizer` for a text that cannot be encoded; what the device reports.
    pub async fn embed<T: AsRef<str> + Sync>(&mut self, texts: &[T], options: &TextOptions) -> Result<Vec<Vec<f32>>> {
        self.stream(texts, options).all(texts.len()).await
    }

    /// The plan for these parts: built where none of the right size is kept.
    fn ready(&mut self, parts: &[&[u32]]) -> Result<&Ready> {
        let rows: usize = parts.iter().map(|part| part.len()).sum();
        let phase = self.phase(bucket(rows, parts.len(), self.batch_tokens()));
        let found = self.plans.iter().position(|ready| ready.phase == phase);
        let ready = match found {
            Some(index) => self.plans.remove(index),
            None => {
                let (builder, ports) = self.written(phase)?;
                let plan = builder.sharing(&self.scratch).finish();
                if self.scratch.take_outgrown() {
                    // The others hold smaller buffers.
                    self.plans.clear();
                }
                Ready { phase, plan: plan?, ports }
            }
        };
        if self.plans.len() >= KEPT_PLANS {
            self.plans.remove(0);
        }
        self.plans.push(ready);
        self.plans.last().ok_or_else(|| Error::shape("no plan"))
    }

    fn phase(&self, [rows, texts]: [usize; 2]) -> Phase {
        Phase { rows, texts, pooling: self.pooling(), normalize: self.is_normalized(), f16: !self.plain }
    }

    fn written(&self, phase: Phase) -> Result<(Builder, Ports)> {
        let mut builder = Builder::new(&self.context);
        if self.plain {
            builder = builder.clipped(&Profile::by_name("webgpu-baseline")?);
        }
        let ports = self.bert.write(&mut builder, &self.context, phase)?;
        Ok((builder, ports))
    }

    /// Shaders of the plan for `count` texts of `tokens` each that the device has not compiled yet, to be compiled side by
    /// side where that can be done.
    ///
    /// # Errors
    /// `Shape` or `OutOfMemory` where it is beyond the device's limits.
    pub fn uncompiled(&self, tokens: usize, count: usize) -> Result<Vec<Uncompiled>> {
        self.written(self.phase(bucket(tokens * count, count, self.batch_tokens())))?.0.uncompiled()
    }

    /// The plan that these texts, tokens already, are computed with, and its input: for timing and tracing.
    ///
    /// # Errors
    /// `Shape` for a token that is not in the vocabulary or more of them than [`Self::max_tokens`]; `Shape` or `OutOfMemory` where the
    /// plan is beyond the device's limits.
    pub fn plan_for(&self, texts: &[&[u32]]) -> Result<Plan> {
        for (index, text) in texts.iter().enumerate() {
            self.reader.checked(text).map_err(|error| error.context(format!("text {index}")))?;
        }
        let rows: usize = texts.iter().map(|text| text.len()).sum();
        let phase = self.phase(bucket(rows, texts.len(), self.batch_tokens().max(rows)));
        let (builder, ports) = self.written(phase)?;
        fill(&self.context, &phase, &ports, texts)?;
        builder.finish()
    }
}

impl Compute for Embedder {
    fn reader(&self) -> &Reader {
        &self.reader
    }

    fn batches(&self, lengths: &[usize]) -> Vec<usize> {
        Embedder::batches(self, lengths)
    }

    fn submit(&mut self, parts: &[&[u32]]) -> Result<Pending> {
        let context = self.context.clone();
        let ready = self.ready(parts)?;
        fill(&context, &ready.phase, &ready.ports, parts)?;
        let vectors = ready.ports.vectors.slice(0, parts.len());
        let vectors = vectors.ok_or_else(|| Error::shape(format!("{} texts in one plan", parts.len())))?;
        let pending = ready.plan.replay_and_read(0, &vectors)?;
        Ok(Box::pin(async move { Ok(bytemuck::pod_collect_to_vec(&pending.bytes().await?)) }))
    }
}

/// Writes texts where a plan takes them from.
fn fill(context: &Context, phase: &Phase, ports: &Ports, parts: &[&[u32]]) -> Result<()> {
    let mut words = crate::kernels::packed::pack(parts, phase.rows)
        .ok_or_else(|| Error::shape(format!("texts of more than {} tokens together", phase.rows)))?;
    let texts = ports.texts.offset() as usize / 4;
    words.resize(texts, 0);
    let mut start = 0;
    for part in parts {
        words.extend([start, part.len() as u32]);
        start += part.len() as u32;
    }
    words.resize(texts + 2 * phase.texts, 0);
    // One write for both, which takes the host as long as a few steps.
    context.write(port(&ports.rows)?, 0, bytemuck::cast_slice(&words));
    Ok(())
}

fn port(tensor: &Tensor) -> Result<&Buffer> {
    match tensor.storage() {
        Storage::Buffer(buffer) => Ok(buffer),
        Storage::Activation(_) => Err(Error::shape("port: found an activation, expected a buffer")),
    }
}
