//! [`Model`]: weights on a device, shared by sessions.

use std::sync::Arc;

use crate::chat::ChatTemplate;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::Metadata;
use crate::format::gguf::Gguf;
use crate::format::source::{ByteSource, MaybeSend};
use crate::gpu::Context;
use crate::models::llama::Config;
use crate::models::llama::plan::{Llama, memory_bytes};
use crate::models::weights::Weights;
use crate::profile::Profile;
use crate::tokenizer::Tokenizer;

/// How far loading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of the file that are on the device.
    pub loaded_bytes: u64,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// A file whose header is read and whose tokenizer is built, for which no device is needed yet: a browser takes long to
/// give one.
pub struct ModelFile {
    gguf: Arc<Gguf>,
    config: Config,
    tokenizer: Option<Tokenizer>,
}

impl ModelFile {
    /// Reads a GGUF file's header.
    ///
    /// # Errors
    /// `Format` or `Unsupported` for a file that cannot be loaded.
    pub async fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let gguf = Arc::new(Gguf::open(source).await?);
        let config = config_of(&gguf)?;
        let tokenizer = match gguf.metadata().str("tokenizer.ggml.model")? {
            None | Some("no_vocab" | "none") => None,
            Some(_) => Some(Tokenizer::from_gguf(gguf.metadata())?),
        };
        if let Some(tokenizer) = tokenizer.as_ref().filter(|tokenizer| tokenizer.vocab_size() > config.vocab_size) {
            return Err(Error::format(format!(
                "metadata tokenizer.ggml.tokens: found {} tokens, expected at most {}, the rows of token_embd.weight",
                tokenizer.vocab_size(),
                config.vocab_size
            )));
        }
        Ok(Self { gguf, config, tokenizer })
    }
}

/// A model on a device. Clones share it.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    context: Context,
    llama: Llama,
    metadata: Metadata,
    tokenizer: Option<Tokenizer>,
    name: String,
    synthetic: bool,
    dtype: DType,
    weight_bytes: u64,
}

/// What a model and a session of it will take on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights, packed.
    pub weight_bytes: u64,
    /// Keys and values.
    pub cache_bytes: u64,
}

impl MemoryPlan {
    /// The plan for a file and a session of `slots` sequences of `context_length` positions (0: the model's), before
    /// anything is allocated.
    ///
    /// # Errors
    /// `Unsupported` or `Format` for a file that cannot be loaded, `OutOfMemory` where a part of it cannot be bound.
    pub fn new(gguf: &Gguf, slots: usize, context_length: usize, profile: &Profile) -> Result<Self> {
        let config = config_of(gguf)?;
        let context_length = if context_length == 0 { config.context_length } else { context_length };
        let dtype = |name: &str| gguf.tensor(name).map_or(DType::F32, |tensor| tensor.dtype);
        let (weight_bytes, cache_bytes) = memory_bytes(&config, dtype, slots, context_length, profile)?;
        Ok(Self { weight_bytes, cache_bytes })
    }

    /// Both together; activations come on top: for 7B 38 MB, or 151 MB where prompts go in chunks of 2048.
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes + self.cache_bytes
    }
}

fn config_of(gguf: &Gguf) -> Result<Config> {
    let config = Config::from_metadata(gguf.metadata(), |name| gguf.tensor(name).map(|tensor| tensor.shape.clone()))?;
    config.check_tensors(gguf.tensors().iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())))?;
    Ok(config)
}

impl Model {
    /// Loads a GGUF file onto a device. `progress` is called as bytes arrive there.
    ///
    /// # Errors
    /// `Format` or `Unsupported` for a file that cannot be loaded, `OutOfMemory` where it does not fit.
    ///
    /// # Examples
    /// ```no_run
    /// # pollster::block_on(async {
    /// use anygpu::{format::source::MappedFile, generate::Model, gpu};
    /// let adapter = gpu::Adapter::request(&Default::default()).await?;
    /// let context = gpu::Context::open(&adapter, None).await?;
    /// let file = std::sync::Arc::new(MappedFile::open("model.gguf")?);
    /// let model = Model::load(&context, file, |progress| eprintln!("{}", progress.loaded_bytes)).await?;
    /// # Ok::<(), anygpu::Error>(()) }).unwrap();
    /// ```
    pub async fn load(
        context: &Context,
        source: Arc<dyn ByteSource>,
        progress: impl FnMut(LoadProgress) + MaybeSend,
    ) -> Result<Self> {
        Self::load_file(context, ModelFile::open(source).await?, progress).await
    }

    /// The same for a file whose header is already read.
    ///
    /// # Errors
    /// `Format` for tensors that are not as the header says, `OutOfMemory` where they do not fit.
    pub async fn load_file(
        context: &Context,
        file: ModelFile,
        mut progress: impl FnMut(LoadProgress) + MaybeSend,
    ) -> Result<Self> {
        let ModelFile { gguf, config, tokenizer } = file;
        let total_bytes = gguf.tensors().iter().map(|tensor| tensor.bytes).sum();
        let before = context.memory().current_bytes();
        let mut report = |loaded_bytes| progress(LoadProgress { loaded_bytes, total_bytes });
        let llama = Llama::load(context, config, Weights::File(gguf.clone()), &mut report).await?;
        report(total_bytes);
        // The format of most bytes names the file's.
        let mut by_dtype = std::collections::BTreeMap::new();
        for tensor in gguf.tensors() {
            *by_dtype.entry(tensor.dtype).or_insert(0) += tensor.bytes;
        }
        let dtype = by_dtype.into_iter().max_by_key(|&(_, bytes)| bytes).map_or(DType::F32, |(dtype, _)| dtype);
        Ok(Self(Arc::new(Inner {
            context: context.clone(),
            llama,
            name: gguf.metadata().str("general.name")?.unwrap_or("llama").to_owned(),
            metadata: gguf.metadata().clone(),
            tokenizer,
            synthetic: false,
            dtype,
            weight_bytes: context.memory().current_bytes() - before,
        })))
    }

    /// A well-known shape with random weights, made on the device: for timing without a file.
    ///
    /// # Errors
    /// `Unsupported` for another name or format, `OutOfMemory` where it does not fit.
    pub async fn synthetic(context: &Context, name: &str, dtype: DType) -> Result<Self> {
        let config = Config::synthetic(name)?;
        let before = context.memory().current_bytes();
        let llama = Llama::load(context, config, Weights::Synthetic(dtype), &mut |_| {}).await?;
        Ok(Self(Arc::new(Inner {
            context: context.clone(),
            llama,
            metadata: Metadata::default(),
            tokenizer: None,
            name: name.to_owned(),
            synthetic: true,
            dtype,
            weight_bytes: context.memory().current_bytes() - before,
        })))
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// The model's numbers.
    pub fn config(&self) -> &Config {
        self.0.llama.config()
    }

    pub(super) fn llama(&self) -> &Llama {
        &self.0.llama
    }

    /// The file's metadata; empty where weights are synthetic.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// `general.name`, or the synthetic shape's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the weights are random numbers.
    pub fn is_synthetic(&self) -> bool {
        self.0.synthetic
    }

    /// The format that most of the weights' bytes are in.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Bytes of the weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.0.weight_bytes
    }

    /// The file's tokenizer.
    ///
    /// # Errors
    /// `Tokenizer` where it has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let missing =
            || Error::tokenizer(format!("{}: no tokenizer found, expected tokenizer.ggml.model", self.name()));
        self.0.tokenizer.as_ref().ok_or_else(missing)
    }

    /// The file's chat template.
    ///
    /// # Errors
    /// `Tokenizer` where there is no tokenizer or the template does not parse.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        ChatTemplate::from_gguf(&self.0.metadata, self.tokenizer()?)
    }
}
