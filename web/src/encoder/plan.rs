//! An encoder as a plan.

use anygpu::Result;
use anygpu::embed::{Embedder, LoadOptions, ModelFiles, Reader, TextOptions, VectorStream};
use anygpu::gpu::Context;
use serde_json::{Value, json};

use super::{Encoder, Loaded};
use crate::host::Host;

impl Encoder for Embedder {
    fn context(&self) -> &Context {
        self.context()
    }

    fn reader(&self) -> &Reader {
        self.reader()
    }

    fn describe(&self, info: &mut Value) {
        info["model"]["dtype"] = self.dtype().name().into();
        let bytes = self.context().memory().current_bytes();
        info["memory"] = json!({ "weightBytes": self.weight_bytes(), "bytes": bytes });
    }

    fn stream<'a>(&'a mut self, texts: &'a [&'a str], options: &TextOptions) -> VectorStream<'a> {
        self.stream(texts, options)
    }
}

pub async fn load(
    host: &Host,
    profile: Option<&str>,
    files: ModelFiles,
    options: &LoadOptions,
    opened: impl FnOnce(&Context),
) -> Result<Loaded> {
    let (adapter, context) = host.open(profile).await?;
    opened(&context);
    let embedder = Embedder::load(&context, files, options, |progress| host.loaded(progress)).await?;
    // A CPU that plays a GPU takes many seconds for them: there only what is used is compiled.
    if !adapter.is_cpu() {
        host.say(&json!({ "type": "progress", "phase": "compile" }));
        let mut shaders = Vec::new();
        // What few and many tokens need.
        for tokens in [16, 32, 64, 128, embedder.batch_tokens()] {
            for shader in embedder.uncompiled(tokens, 1)? {
                if !shaders.contains(&shader) {
                    shaders.push(shader);
                }
            }
        }
        host.compile_all(&shaders).await?;
    }
    context.finish().await?;
    Ok(Loaded { encoder: Box::new(embedder), is_cpu: adapter.is_cpu() })
}
