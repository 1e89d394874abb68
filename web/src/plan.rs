//! What can be said before anything is loaded: the adapter, and what a file would take on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anygpu::ErrorKind;
use anygpu::format::gguf::Gguf;
use anygpu::generate::model::MemoryPlan;
use anygpu::profile::Profile;
use anygpu::{DType, Result};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::engine::LoadOptions;
use crate::error::{bad_options, to_js};
use crate::host::Host;
use crate::source::{JsSource, Source};

/// The adapter's profile, clipped to a stored one where `profile` names it, as JSON.
#[wasm_bindgen]
pub async fn adapter(host: Host, profile: Option<String>) -> std::result::Result<String, JsValue> {
    describe(&host, profile.as_deref()).await.map(|value| value.to_string()).map_err(|error| to_js(&error))
}

async fn describe(host: &Host, profile: Option<&str>) -> Result<Value> {
    let (profile, is_cpu) = offered(host, profile).await?;
    let mut value = serde_json::to_value(profile).unwrap_or_default();
    value["isCpu"] = json!(is_cpu);
    Ok(value)
}

async fn offered(host: &Host, profile: Option<&str>) -> Result<(Profile, bool)> {
    let clip = profile.map(Profile::by_name).transpose()?;
    let adapter = host.adapter().await?;
    let profile = match clip {
        Some(clip) => adapter.profile().clip(&clip),
        None => adapter.profile().clone(),
    };
    Ok((profile, adapter.is_cpu()))
}

/// What a file is and takes on the GPU, from its header alone, as JSON. `options` is JSON, see [`LoadOptions`].
#[wasm_bindgen]
pub async fn plan(host: Host, source: JsSource, options: String) -> std::result::Result<String, JsValue> {
    let planned = async {
        let options: LoadOptions = serde_json::from_str(&options).map_err(|error| bad_options(&error))?;
        let gguf = Gguf::open(Arc::new(Source::new(source))).await?;
        let (profile, is_cpu) = offered(&host, options.profile.as_deref()).await?;
        planned(&gguf, &options, &profile, is_cpu)
    };
    planned.await.map(|value| value.to_string()).map_err(|error| to_js(&error))
}

fn planned(gguf: &Gguf, options: &LoadOptions, profile: &Profile, is_cpu: bool) -> Result<Value> {
    let metadata = gguf.metadata();
    let (mut by_dtype, mut parameters, mut file_bytes) = (BTreeMap::new(), 0, 0);
    for tensor in gguf.tensors() {
        *by_dtype.entry(tensor.dtype).or_insert(0) += tensor.bytes;
        parameters += tensor.elements();
        file_bytes += tensor.bytes;
    }
    let dtype = by_dtype.into_iter().max_by_key(|&(_, bytes)| bytes).map_or(DType::F32, |(dtype, _)| dtype);
    let architecture = metadata.str("general.architecture")?.unwrap_or("none");
    let number = |key: &str| metadata.u64(&format!("{architecture}.{key}"));
    let mut adapter = serde_json::to_value(profile).unwrap_or_default();
    adapter["isCpu"] = json!(is_cpu);
    let mut value = json!({
        "model": {
            "name": metadata.str("general.name")?.unwrap_or(architecture),
            "architecture": architecture,
            "dtype": dtype.name(),
            "parameters": parameters,
            "contextLength": number("context_length")?,
            "layers": number("block_count")?,
            "tensorBytes": file_bytes,
        },
        "contextLength": match options.context_length {
            0 => number("context_length")?,
            length => Some(length as u64),
        },
        "slots": options.slots,
        "limits": { "maxBufferBytes": profile.limits.max_buffer_bytes, "maxBindingBytes": profile.limits.max_binding_bytes },
        "adapter": adapter,
    });
    match MemoryPlan::new(gguf, options.slots, options.context_length, profile) {
        Ok(plan) => {
            value["weightBytes"] = json!(plan.weight_bytes);
            value["cacheBytes"] = json!(plan.cache_bytes);
            value["totalBytes"] = json!(plan.total_bytes());
            value["fits"] = json!(true);
        }
        // The file is fine; this device does not take it.
        Err(error) if error.kind() == ErrorKind::OutOfMemory => {
            value["fits"] = json!(false);
            value["reason"] = json!(error.to_string());
        }
        Err(error) => return Err(error),
    }
    Ok(value)
}
