//! What only JavaScript can do, and the device that is opened with its help.

use std::cell::RefCell;

use anygpu::generate::LoadProgress;
use anygpu::gpu::pipeline::Uncompiled;
use anygpu::gpu::{Access, Adapter, AdapterOptions, Context};
use anygpu::profile::Profile;
use anygpu::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::error::{bad_options, from_js};

#[wasm_bindgen]
extern "C" {
    /// The worker's side: `gpu.js` and `serve.js`.
    #[derive(Clone)]
    pub type Host;

    /// A promise of the adapter's description as JSON: [`Gpu`].
    #[wasm_bindgen(method, catch)]
    fn describe(this: &Host) -> std::result::Result<js_sys::Promise, JsValue>;

    /// Compiles shaders side by side, so that making their pipelines then costs nothing: a JSON list of
    /// `{ kernel, source, accesses }`, a letter `r` or `w` for each binding. Resolves when all are done.
    #[wasm_bindgen(method, catch)]
    fn compile(this: &Host, shaders: &str) -> std::result::Result<js_sys::Promise, JsValue>;

    /// Tells the page: a JSON object with a `type`.
    #[wasm_bindgen(method)]
    fn tell(this: &Host, message: &str);

    /// Milliseconds.
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    pub fn now() -> f64;
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn log_error(message: &str);
}

/// Runs when the module is started: a panic, which ends it, says why.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| log_error(&format!("anygpu: {panic}"))));
}

/// What wgpu does not say of an adapter in a browser.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gpu {
    name: String,
    subgroups: bool,
    integer_dot: bool,
}

thread_local! {
    /// The device in use, for errors that reach JavaScript only.
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Takes an error of the device that wgpu cannot read: browsers' internal errors, such as a driver that refuses a shader.
#[wasm_bindgen]
pub fn fault(message: &str) {
    CURRENT.with_borrow(|current| {
        if let Some(context) = current {
            context.report(Error::adapter(message.to_owned()));
        }
    });
}

impl Host {
    /// Tells the page.
    pub fn say(&self, message: &Value) {
        self.tell(&message.to_string());
    }

    /// The browser's adapter.
    pub async fn adapter(&self) -> Result<Adapter> {
        let promise = self.describe().map_err(|error| from_js(&error))?;
        let text = JsFuture::from(promise).await.map_err(|error| from_js(&error))?;
        let text = text.as_string().unwrap_or_default();
        let gpu: Gpu = serde_json::from_str(&text).map_err(|error| bad_options(&error))?;
        let options = AdapterOptions {
            integer_dot: Some(gpu.integer_dot),
            browser_subgroups: gpu.subgroups,
            browser_name: Some(gpu.name),
            ..Default::default()
        };
        Adapter::request(&options).await
    }

    /// The adapter and a device on it, clipped to the stored profile of that name.
    pub async fn open(&self, profile: Option<&str>) -> Result<(Adapter, Context)> {
        let clip = profile.map(Profile::by_name).transpose()?;
        let adapter = self.adapter().await?;
        let context = Context::open(&adapter, clip.as_ref()).await?;
        self.watch(&context);
        Ok((adapter, context))
    }

    /// Has errors that reach JavaScript only come to this device.
    pub fn watch(&self, context: &Context) {
        CURRENT.set(Some(context.clone()));
    }

    /// Tells the page how much of a model is on the device.
    pub fn loaded(&self, progress: LoadProgress) {
        self.say(&json!({
            "type": "progress", "phase": "load",
            "loadedBytes": progress.loaded_bytes, "totalBytes": progress.total_bytes,
        }));
    }

    /// Forgets the device, so that the last of its handles frees it.
    pub fn close(&self) {
        CURRENT.set(None);
    }

    /// Has shaders compiled side by side. One that is refused is no error here: making its pipeline says so.
    pub async fn compile_all(&self, shaders: &[Uncompiled]) -> Result<()> {
        if shaders.is_empty() {
            return Ok(());
        }
        let letter = |access: &Access| if *access == Access::Read { 'r' } else { 'w' };
        let list: Vec<Value> = shaders
            .iter()
            .map(|shader| {
                let accesses: String = shader.accesses.iter().map(letter).collect();
                json!({ "kernel": shader.kernel, "source": shader.source, "accesses": accesses })
            })
            .collect();
        let promise = self.compile(&Value::from(list).to_string()).map_err(|error| from_js(&error))?;
        JsFuture::from(promise).await.map_err(|error| from_js(&error))?;
        Ok(())
    }
}
