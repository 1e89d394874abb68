//! [`Engine`]: a model on a device, rebuilt from its source after the device was lost.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use anygpu::chat::{ChatTemplate, Conversation};
use anygpu::format::source::ByteSource;
use anygpu::generate::{Model, ModelFile, Session, SessionOptions};
use anygpu::gpu::Context;
use anygpu::models::llama::plan::Phase;
use anygpu::{Error, ErrorKind, Result};
use futures_util::future::join;
use serde::Deserialize;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::error::{bad_options, from_js, to_js};
use crate::host::{Host, now};
use crate::recovery::{attempt, described};
use crate::source::{JsSource, Source};

/// How a model is opened.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadOptions {
    /// Positions a sequence can have; 0: what the model was made for.
    pub context_length: usize,
    /// Sequences side by side that memory is taken for.
    pub slots: usize,
    /// A stored profile to clip the device to.
    pub profile: Option<String>,
    /// The most decode steps submitted ahead of the one whose token is awaited: a read-back takes a browser milliseconds, which
    /// a small model fills with several steps.
    pub ahead: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { context_length: 0, slots: 1, profile: None, ahead: 24 }
    }
}

/// What lives on the device, and goes with it.
pub struct Loaded {
    pub context: Context,
    pub model: Model,
    pub session: Session,
    pub template: Option<ChatTemplate>,
    pub stop_tokens: Vec<u32>,
    pub is_cpu: bool,
}

/// A model, ready to write.
#[wasm_bindgen]
pub struct Engine {
    pub(crate) host: Host,
    source: Arc<Source>,
    options: LoadOptions,
    /// Taken out while something runs on it.
    loaded: RefCell<Option<Loaded>>,
    /// Of the device in use, for questions while something runs.
    context: RefCell<Option<Context>>,
    pub(crate) conversation: RefCell<Conversation>,
    pub(crate) cancelled: Cell<bool>,
    load_ms: Cell<f64>,
}

#[wasm_bindgen]
impl Engine {
    /// Opens a device and loads the model onto it. `options` is JSON, see [`LoadOptions`].
    pub async fn load(host: Host, source: JsSource, options: String) -> std::result::Result<Engine, JsValue> {
        let options: LoadOptions = serde_json::from_str(&options).map_err(|error| to_js(&bad_options(&error)))?;
        let engine = Self {
            host,
            source: Arc::new(Source::new(source)),
            options,
            loaded: RefCell::new(None),
            context: RefCell::new(None),
            conversation: RefCell::default(),
            cancelled: Cell::new(false),
            load_ms: Cell::new(0.0),
        };
        let start = now();
        let loaded = engine.load_again(None).await.map_err(|error| to_js(&error))?;
        engine.load_ms.set(now() - start);
        engine.loaded.replace(Some(loaded));
        Ok(engine)
    }

    /// What was loaded and onto what, as JSON.
    pub fn info(&self) -> String {
        let loaded = self.loaded.borrow();
        let Some(loaded) = loaded.as_ref() else { return "null".to_owned() };
        let model = &loaded.model;
        let config = model.config();
        let info = json!({
            "adapter": described(&loaded.context, loaded.is_cpu),
            "model": {
                "name": model.name(),
                "dtype": model.dtype().name(),
                "layers": config.n_layers,
                "vocabulary": config.vocab_size,
                "contextLength": config.context_length,
                "hasChatTemplate": loaded.template.as_ref().is_some_and(|template| !template.is_fallback()),
            },
            "contextLength": loaded.session.context_length(),
            "memory": { "weightBytes": model.weight_bytes(), "bytes": loaded.context.memory().current_bytes() },
            "loadMs": self.load_ms.get(),
        });
        info.to_string()
    }

    /// GPU memory that this engine's buffers take, as JSON.
    pub fn memory(&self) -> String {
        let context = self.context.borrow();
        let (current, peak) = context
            .as_ref()
            .map_or((0, 0), |context| (context.memory().current_bytes(), context.memory().peak_bytes()));
        json!({ "currentBytes": current, "peakBytes": peak }).to_string()
    }

    /// Asks what runs to end; it does so before its next token or row.
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

impl Engine {
    /// Takes what is loaded out, to be put back with [`Self::give_back`]; loads it again where its device was lost.
    pub async fn take(&self) -> Result<Loaded> {
        let loaded = self.loaded.take();
        let lost = match &loaded {
            // Any other error is for the call that caused it, which is over.
            Some(loaded) => loaded.context.check().err().filter(|error| error.kind() == ErrorKind::DeviceLost),
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

    /// Puts back what [`Self::take`] took.
    pub fn give_back(&self, loaded: Loaded) {
        self.loaded.replace(Some(loaded));
    }

    /// Milliseconds that the load took.
    pub fn load_ms(&self) -> f64 {
        self.load_ms.get()
    }

    /// Decode steps submitted ahead.
    pub fn ahead(&self) -> usize {
        self.options.ahead
    }

    /// Opens a new device and loads everything onto it, in place of one that was `lost` if there was one.
    pub async fn load_again(&self, lost: Option<&Error>) -> Result<Loaded> {
        self.context.take();
        self.host.close();
        attempt(&self.host, lost, || self.load_once()).await
    }

    async fn load_once(&self) -> Result<Loaded> {
        // The browser makes the device elsewhere while the header is read here.
        let source: Arc<dyn ByteSource> = self.source.clone();
        let (opened, file) = join(self.host.open(self.options.profile.as_deref()), ModelFile::open(source)).await;
        let (adapter, context) = opened?;
        self.context.replace(Some(context.clone()));
        let model = Model::load_file(&context, file?, |progress| self.host.loaded(progress)).await?;
        let mut session = model.session(SessionOptions {
            context_length: self.options.context_length,
            slots: self.options.slots,
            ahead: self.options.ahead,
            ..Default::default()
        })?;
        // A CPU that plays a GPU takes many seconds for them: there only what is used is compiled.
        let (template, stop_tokens) = if !adapter.is_cpu() {
            self.host.say(&json!({ "type": "progress", "phase": "compile" }));
            // What questions of any length need, though only the plan that all of them need is built.
            let mut phases = Vec::new();
            for tokens in [8, 16, 32, 64, 128, 256, session.chunk() + 8] {
                let tokens = vec![0; tokens.min(session.context_length())];
                for phase in session.missing_phases(&tokens) {
                    if !phases.contains(&phase) {
                        phases.push(phase);
                    }
                }
            }
            // The browser compiles elsewhere too.
            let (compiled, words) = join(self.compile(&session, &phases), async { words(&model) }).await;
            compiled?;
            session.prepare(session.decode_phase(0))?;
            words?
        } else {
            words(&model)?
        };
        context.finish().await?;
        Ok(Loaded { context, model, session, template, stop_tokens, is_cpu: adapter.is_cpu() })
    }

    /// Builds the plans of phases, their shaders compiled side by side.
    pub async fn prepare(&self, session: &mut Session, phases: &[Phase]) -> Result<()> {
        self.compile(session, phases).await?;
        for &phase in phases {
            session.prepare(phase)?;
        }
        Ok(())
    }

    /// Has the shaders of phases compiled side by side.
    async fn compile(&self, session: &Session, phases: &[Phase]) -> Result<()> {
        let mut shaders = Vec::new();
        for &phase in phases {
            for shader in session.uncompiled(phase)? {
                if !shaders.contains(&shader) {
                    shaders.push(shader);
                }
            }
        }
        self.host.compile_all(&shaders).await
    }
}

/// How a model's conversations are written, and the tokens that end an answer. A model without a tokenizer has neither:
/// it runs on token ids.
fn words(model: &Model) -> Result<(Option<ChatTemplate>, Vec<u32>)> {
    let tokenizer = match model.tokenizer() {
        Ok(tokenizer) => tokenizer,
        Err(error) if error.kind() == ErrorKind::Tokenizer => return Ok((None, Vec::new())),
        Err(error) => return Err(error),
    };
    // `strftime_now` of templates that put today's date into their instructions.
    let template = model.chat_template()?.with_time((js_sys::Date::now() / 1e3) as i64);
    let stops = (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.is_end_of_generation(id)).collect();
    Ok((Some(template), stops))
}

/// Calls JavaScript with a JSON value.
pub fn call(function: &js_sys::Function, value: &Value) -> Result<()> {
    function.call1(&JsValue::NULL, &JsValue::from(value.to_string())).map(|_| ()).map_err(|error| from_js(&error))
}
