//! [`Embedder`]: an encoder on a device, loaded again from its files after the device was lost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use anygpu::embed::{LoadOptions, Long, ModelFiles, Reader, TextOptions};
use anygpu::gpu::Context;
use anygpu::models::bert::Pooling;
use anygpu::{DType, Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::encoder::{self, Choice, Encoder, KernelsName, Loaded};
use crate::error::{bad_options, from_js, to_js};
use crate::host::{Host, now};
use crate::recovery::{ATTEMPTS, attempt, described};
use crate::source::{JsSource, Source};

#[wasm_bindgen]
extern "C" {
    /// What `serve.js` opened and fetched of a model: each undefined where it is not there, but for the weights.
    pub type JsFiles;

    #[wasm_bindgen(method, getter)]
    fn weights(this: &JsFiles) -> JsSource;
    #[wasm_bindgen(method, getter)]
    fn config(this: &JsFiles) -> Option<Vec<u8>>;
    #[wasm_bindgen(method, getter)]
    fn tokenizer(this: &JsFiles) -> Option<Vec<u8>>;
    #[wasm_bindgen(method, getter)]
    fn modules(this: &JsFiles) -> Option<Vec<u8>>;
    #[wasm_bindgen(method, getter)]
    fn pooling(this: &JsFiles) -> Option<Vec<u8>>;
    #[wasm_bindgen(method, getter)]
    fn sentence(this: &JsFiles) -> Option<Vec<u8>>;
    #[wasm_bindgen(method, getter)]
    fn prompts(this: &JsFiles) -> Option<Vec<u8>>;
}

/// How an encoder is opened.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    /// What matrices become; without it they stay as the file has them.
    dtype: Option<String>,
    pooling: Option<PoolingName>,
    normalize: Option<bool>,
    max_tokens: Option<usize>,
    /// The most tokens computed together: as many as leave a GPU of a phone answering.
    batch_tokens: usize,
    /// See [`Choice`].
    profile: Option<String>,
    kernels: Option<KernelsName>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dtype: None,
            pooling: None,
            normalize: None,
            max_tokens: None,
            batch_tokens: 4096,
            profile: None,
            kernels: None,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PoolingName {
    Mean,
    Cls,
    Last,
}

impl From<PoolingName> for Pooling {
    fn from(name: PoolingName) -> Self {
        match name {
            PoolingName::Mean => Pooling::Mean,
            PoolingName::Cls => Pooling::Cls,
            PoolingName::Last => Pooling::LastToken,
        }
    }
}

/// How texts are read.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    /// What goes in front of every text.
    prefix: Option<String>,
    /// The same by a name that the model's files know.
    prompt: Option<String>,
    /// Long texts are cut into parts instead of at their end.
    split: bool,
}

/// Vectors as far as they are there. They outlive the device that began them.
struct Vectors {
    values: Vec<f32>,
    /// Of each text, whether its vector is there.
    done: Vec<bool>,
    count: usize,
}

/// An encoder, ready to read texts.
#[wasm_bindgen]
pub struct Embedder {
    host: Host,
    files: ModelFiles,
    load_options: LoadOptions,
    choice: Choice,
    /// Taken out while something runs on it.
    loaded: RefCell<Option<Loaded>>,
    /// Of the device in use, for questions while something runs.
    context: RefCell<Option<Context>>,
    cancelled: Cell<bool>,
    load_ms: Cell<f64>,
}

#[wasm_bindgen]
impl Embedder {
    /// Opens a device and loads the encoder onto it. `options` is JSON.
    pub async fn load(host: Host, files: JsFiles, options: String) -> std::result::Result<Embedder, JsValue> {
        let embedder = Self::new(host, &files, &options).map_err(|error| to_js(&error))?;
        let start = now();
        let loaded = embedder.load_again(None).await.map_err(|error| to_js(&error))?;
        embedder.load_ms.set(now() - start);
        embedder.loaded.replace(Some(loaded));
        Ok(embedder)
    }

    /// What was loaded and onto what, as JSON.
    pub fn info(&self) -> String {
        let loaded = self.loaded.borrow();
        let Some(Loaded { encoder, is_cpu }) = loaded.as_ref() else { return "null".to_owned() };
        let reader = encoder.reader();
        let pooling = match reader.pooling() {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::LastToken => "last",
        };
        let mut info = json!({
            "adapter": described(encoder.context(), *is_cpu),
            "model": {
                "dimensions": reader.dimensions(),
                "layers": reader.config().n_layers,
                "vocabulary": reader.config().vocab_size,
                "maxTokens": reader.max_tokens(),
                "pooling": pooling,
                "normalized": reader.is_normalized(),
            },
            // Pairs: names of a model's files are not to be rewritten as keys.
            "prompts": reader.prompts().collect::<Vec<_>>(),
            "loadMs": self.load_ms.get(),
        });
        encoder.describe(&mut info);
        info.to_string()
    }

    /// GPU memory that this encoder's buffers take, as JSON.
    pub fn memory(&self) -> String {
        let context = self.context.borrow();
        let memory = context.as_ref().map(Context::memory);
        let (current, peak) = memory.map_or((0, 0), |memory| (memory.current_bytes(), memory.peak_bytes()));
        json!({ "currentBytes": current, "peakBytes": peak }).to_string()
    }

    /// The vectors of texts one behind the other; `on_progress` gets how many are done. `options` is JSON.
    pub async fn embed(
        &self,
        texts: Vec<String>,
        options: String,
        on_progress: js_sys::Function,
    ) -> std::result::Result<js_sys::Float32Array, JsValue> {
        self.cancelled.set(false);
        let values = async {
            let reading: Wanted = serde_json::from_str(&options).map_err(|error| bad_options(&error))?;
            self.compute(&texts, &reading, &on_progress).await
        };
        values.await.map(|values| js_sys::Float32Array::from(&values[..])).map_err(|error| to_js(&error))
    }

    /// Asks what runs to end; it does so before its next vector.
    pub fn cancel(&self) {
        self.cancelled.set(true);
    }

    /// Frees everything on the device and destroys it.
    pub fn dispose(&self) {
        self.loaded.replace(None);
        if let Some(context) = self.context.take() {
            context.lose();
        }
        self.host.close();
    }
}

impl Embedder {
    fn new(host: Host, files: &JsFiles, options: &str) -> Result<Self> {
        let options: Options = serde_json::from_str(options).map_err(|error| bad_options(&error))?;
        let load_options = LoadOptions {
            dtype: options.dtype.as_deref().map(str::parse::<DType>).transpose()?,
            pooling: options.pooling.map(Pooling::from),
            normalize: options.normalize,
            max_tokens: options.max_tokens,
            batch_tokens: options.batch_tokens,
            plain: false,
        };
        let files = ModelFiles {
            config: files.config(),
            tokenizer: files.tokenizer(),
            modules: files.modules(),
            pooling: files.pooling(),
            sentence: files.sentence(),
            prompts: files.prompts(),
            ..ModelFiles::single(Arc::new(Source::new(files.weights())))
        };
        Ok(Self {
            host,
            files,
            load_options,
            choice: Choice { profile: options.profile, kernels: options.kernels },
            loaded: RefCell::new(None),
            context: RefCell::new(None),
            cancelled: Cell::new(false),
            load_ms: Cell::new(0.0),
        })
    }

    async fn load_again(&self, lost: Option<&Error>) -> Result<Loaded> {
        self.context.take();
        self.host.close();
        attempt(&self.host, lost, || self.load_once()).await
    }

    async fn load_once(&self) -> Result<Loaded> {
        let opened = |context: &Context| {
            self.context.replace(Some(context.clone()));
        };
        encoder::load(&self.host, &self.choice, self.files.clone(), &self.load_options, opened).await
    }

    /// Takes what is loaded out; loads it again where its device was lost.
    async fn take(&self) -> Result<Loaded> {
        let loaded = self.loaded.take();
        let lost = match &loaded {
            // Any other error is for the call that caused it, which is over.
            Some(loaded) => {
                loaded.encoder.context().check().err().filter(|error| error.kind() == ErrorKind::DeviceLost)
            }
            None => Some(Error::device_lost("the device was lost")),
        };
        match (loaded, lost) {
            (Some(loaded), None) => Ok(loaded),
            (loaded, lost) => {
                drop(loaded);
                self.load_again(lost.as_ref()).await
            }
        }
    }

    async fn compute(&self, texts: &[String], reading: &Wanted, on_progress: &js_sys::Function) -> Result<Vec<f32>> {
        let mut vectors = Vectors { values: Vec::new(), done: vec![false; texts.len()], count: 0 };
        let mut left = ATTEMPTS;
        loop {
            let mut loaded = self.take().await?;
            let before = vectors.count;
            let result = self.go_on(loaded.encoder.as_mut(), texts, reading, &mut vectors, on_progress).await;
            match result {
                Err(error) if error.kind() == ErrorKind::DeviceLost && left > 1 => {
                    left = if vectors.count > before { ATTEMPTS } else { left - 1 };
                }
                result => {
                    self.loaded.replace(Some(loaded));
                    return result.map(|()| vectors.values);
                }
            }
        }
    }

    /// Computes what is missing.
    async fn go_on(
        &self,
        encoder: &mut dyn Encoder,
        texts: &[String],
        reading: &Wanted,
        vectors: &mut Vectors,
        on_progress: &js_sys::Function,
    ) -> Result<()> {
        let options = text_options(encoder.reader(), reading)?;
        let d = encoder.reader().dimensions();
        vectors.values.resize(texts.len() * d, 0.0);
        let missing: Vec<usize> = (0..texts.len()).filter(|&index| !vectors.done[index]).collect();
        let asked: Vec<&str> = missing.iter().map(|&index| texts[index].as_str()).collect();
        let mut stream = encoder.stream(&asked, &options);
        let mut told = now();
        while let Some(embedded) = stream.next().await {
            let embedded = embedded?;
            let index = missing[embedded.index];
            vectors.values[index * d..][..d].copy_from_slice(&embedded.vector);
            vectors.done[index] = true;
            vectors.count += 1;
            if self.cancelled.get() {
                return Err(Error::cancelled("cancelled by the caller"));
            }
            // At most twenty times a second.
            if vectors.count == texts.len() || now() - told > 50.0 {
                told = now();
                let (done, total) = (vectors.count as f64, texts.len() as f64);
                on_progress.call2(&JsValue::NULL, &done.into(), &total.into()).map_err(|error| from_js(&error))?;
            }
        }
        Ok(())
    }
}

fn text_options(reader: &Reader, reading: &Wanted) -> Result<TextOptions> {
    let prefix = match (&reading.prefix, &reading.prompt) {
        (Some(_), Some(_)) => return Err(Error::shape("options: found prefix and prompt, expected one of them")),
        (Some(prefix), None) => prefix.clone(),
        (None, None) => String::new(),
        (None, Some(name)) => {
            let prompts: BTreeMap<&str, &str> = reader.prompts().collect();
            let found = prompts.get(name.as_str()).copied().ok_or_else(|| {
                let known: Vec<&str> = prompts.keys().copied().collect();
                Error::shape(format!("prompt {name:?}: not found, expected one of {known:?}"))
            })?;
            found.to_owned()
        }
    };
    Ok(TextOptions { prefix, long: if reading.split { Long::Split } else { Long::Truncate } })
}
