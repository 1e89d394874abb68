//! An encoder as a Burn module.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use anygpu::Result;
use anygpu::embed::burn::BurnEmbedder;
use anygpu::embed::{LoadOptions, ModelFiles, Reader, TextOptions, VectorStream};
use anygpu::format::source::{BoxFuture, ByteSource};
use anygpu::generate::LoadProgress;
use anygpu::gpu::Context;
use anygpu::models::burn_kernels::{self, Kernels};
use serde_json::Value;

use super::{Encoder, KernelsName, Loaded};
use crate::host::Host;

impl Encoder for BurnEmbedder {
    fn context(&self) -> &Context {
        self.context()
    }

    fn reader(&self) -> &Reader {
        self.reader()
    }

    fn describe(&self, info: &mut Value) {
        let name = match self.kernels() {
            Kernels::Own(_) => "own",
            Kernels::Burn => "burn",
        };
        info["kernels"] = name.into();
    }

    fn stream<'a>(&'a mut self, texts: &'a [&'a str], options: &TextOptions) -> VectorStream<'a> {
        self.stream(texts, options)
    }
}

pub async fn load(
    host: &Host,
    kernels: KernelsName,
    files: ModelFiles,
    options: &LoadOptions,
    opened: impl FnOnce(&Context),
) -> Result<Loaded> {
    let adapter = host.adapter().await?;
    let gpu = burn_kernels::open(&adapter).await?;
    host.watch(&gpu.context);
    opened(&gpu.context);
    let kernels = match kernels {
        KernelsName::Own => gpu.kernels(),
        KernelsName::Burn => Kernels::Burn,
    };
    let weights = Arc::new(Counted { source: files.weights.clone(), host: host.clone(), read: Cell::new(0) });
    let embedder = BurnEmbedder::load(&gpu, kernels, ModelFiles { weights, ..files }, options).await?;
    Ok(Loaded { encoder: Box::new(embedder), is_cpu: adapter.is_cpu() })
}

/// Tells the page how much of a source has been read: what Burn takes to the device is read once.
struct Counted {
    source: Arc<dyn ByteSource>,
    host: Host,
    read: Cell<u64>,
}

impl ByteSource for Counted {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Cow<'_, [u8]>>> {
        Box::pin(async move {
            let bytes = self.source.read(offset, len).await?;
            let total_bytes = self.len();
            // Headers are looked at first to see what kind of file it is.
            self.read.set((self.read.get() + len as u64).min(total_bytes));
            self.host.loaded(LoadProgress { loaded_bytes: self.read.get(), total_bytes });
            Ok(bytes)
        })
    }
}
