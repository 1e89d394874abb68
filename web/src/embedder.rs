//! [`Embedder`]: an encoder on a device, loaded again from its files after the device was lost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use anygpu::embed::{self, LoadOptions, Long, ModelFiles, TextOptions};
use anygpu::gpu::Context;
use anygpu::models::bert::Pooling;
use anygpu::{DType, Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::engine::{ATTEMPTS, attempt, described};
use crate::error::{bad_options, from_js, to_js};
use crate::host::{Host, now};
use crate::source::{JsSource, Source};

#[wasm_bindgen]
extern "C" {
    /// What `worker.js` opened and fetched of a model: each undefined where it is not there, but for the weights.
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
    /// Tokens computed together: as many as leave a GPU of a phone answering.
    batch_tokens: usize,
    /// A stored profile to clip the device to.
    profile: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { dtype: None, pooling: None, normalize: None, max_tokens: None, batch_tokens: 4096, profile: None }
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
struct Reading {
    /// What goes in front of every text.
    prefix: Option<String>,
    /// The same by a name that the model's files know.
    prompt: Option<String>,
    /// Long texts are cut into parts instead of at their end.
    split: bool,
}

/// What lives on the device, and goes with it.
struct Loaded {
    embedder: embed::Embedder,
    is_cpu: bool,
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
    profile: Option<String>,
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
        let Some(Loaded { embedder, is_cpu }) = loaded.as_ref() else { return "null".to_owned() };
        let (config, context) = (embedder.config(), embedder.context());
        let pooling = match embedder.pooling() {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::LastToken => "last",
        };
        json!({
            "adapter": described(context, *is_cpu),
            "model": {
                "dtype": embedder.dtype().name(),
                "dimensions": embedder.dimensions(),
                "layers": config.n_layers,
                "vocabulary": config.vocab_size,
                "maxTokens": embedder.max_tokens(),
                "pooling": pooling,
                "normalized": embedder.is_normalized(),
            },
            // Pairs: names of a model's files are not to be rewritten as keys.
            "prompts": embedder.prompts().collect::<Vec<_>>(),
            "memory": { "weightBytes": embedder.weight_bytes(), "bytes": context.memory().current_bytes() },
            "loadMs": self.load_ms.get(),
        })
        .to_string()
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
            let reading: Reading = serde_json::from_str(&options).map_err(|error| bad_options(&error))?;
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
            profile: options.profile,
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
        let (adapter, context) = self.host.open(self.profile.as_deref()).await?;
        self.context.replace(Some(context.clone()));
        let tell = |progress: anygpu::generate::LoadProgress| {
            self.host.say(&json!({
                "type": "progress", "phase": "load",
                "loadedBytes": progress.loaded_bytes, "totalBytes": progress.total_bytes,
            }));
        };
        let embedder = embed::Embedder::load(&context, self.files.clone(), &self.load_options, tell).await?;
        // A CPU that plays a GPU takes many seconds for them: there only what is used is compiled.
        if !adapter.is_cpu() {
            self.host.say(&json!({ "type": "progress", "phase": "compile" }));
            let mut shaders = Vec::new();
            // What few and many tokens need.
            for tokens in [16, 32, 64, 128, embedder.batch_tokens()] {
                for shader in embedder.uncompiled(tokens, 1)? {
                    if !shaders.contains(&shader) {
                        shaders.push(shader);
                    }
                }
            }
            self.host.compile_all(&shaders).await?;
        }
        context.finish().await?;
        Ok(Loaded { embedder, is_cpu: adapter.is_cpu() })
    }

    /// Takes what is loaded out; loads it again where its device was lost.
    async fn take(&self) -> Result<Loaded> {
        let loaded = self.loaded.take();
        let lost = match &loaded {
            // Any other error is for the call that caused it, which is over.
            Some(loaded) => {
                loaded.embedder.context().check().err().filter(|error| error.kind() == ErrorKind::DeviceLost)
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

    async fn compute(&self, texts: &[String], reading: &Reading, on_progress: &js_sys::Function) -> Result<Vec<f32>> {
        let mut vectors = Vectors { values: Vec::new(), done: vec![false; texts.len()], count: 0 };
        let mut left = ATTEMPTS;
        loop {
            let mut loaded = self.take().await?;
            let before = vectors.count;
            let result = self.go_on(&mut loaded.embedder, texts, reading, &mut vectors, on_progress).await;
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
        embedder: &mut embed::Embedder,
        texts: &[String],
        reading: &Reading,
        vectors: &mut Vectors,
        on_progress: &js_sys::Function,
    ) -> Result<()> {
        let options = text_options(embedder, reading)?;
        let d = embedder.dimensions();
        vectors.values.resize(texts.len() * d, 0.0);
        let missing: Vec<usize> = (0..texts.len()).filter(|&index| !vectors.done[index]).collect();
        let asked: Vec<&str> = missing.iter().map(|&index| texts[index].as_str()).collect();
        let mut stream = embedder.stream(&asked, &options);
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

fn text_options(embedder: &embed::Embedder, reading: &Reading) -> Result<TextOptions> {
    let prefix = match (&reading.prefix, &reading.prompt) {
        (Some(_), Some(_)) => return Err(Error::shape("options: found prefix and prompt, expected one of them")),
        (Some(prefix), None) => prefix.clone(),
        (None, None) => String::new(),
        (None, Some(name)) => {
            let prompts: BTreeMap<&str, &str> = embedder.prompts().collect();
            let found = prompts.get(name.as_str()).copied().ok_or_else(|| {
                let known: Vec<&str> = prompts.keys().copied().collect();
                Error::shape(format!("prompt {name:?}: not found, expected one of {known:?}"))
            })?;
            found.to_owned()
        }
    };
    Ok(TextOptions { prefix, long: if reading.split { Long::Split } else { Long::Truncate } })
}
