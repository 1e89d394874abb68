//! `adapters`: the GPU adapters there are.

use std::io::Write;

use anygpu::gpu::{AdapterOptions, adapter};
use serde_json::{Value, json};

use super::common::{Global, print_json};
use super::failure::{Failure, Result};

/// Runs the command.
pub async fn run(global: &Global) -> Result {
    let clip = global.stored_profile()?;
    let wanted = global.adapter.as_deref().unwrap_or("").to_lowercase();
    let mut adapters = adapter::all(&AdapterOptions::default()).await;
    adapters.retain(|adapter| adapter.profile().name.to_lowercase().contains(&wanted));
    let described = |adapter: &adapter::Adapter| match &clip {
        Some(clip) => adapter.profile().clip(clip),
        None => adapter.profile().clone(),
    };
    if global.json {
        let list: Vec<Value> = adapters
            .iter()
            .map(|adapter| {
                let profile = described(adapter);
                json!({ "driver": adapter.driver(), "is_cpu": adapter.is_cpu(), "profile": profile })
            })
            .collect();
        print_json(&json!(list))?;
    } else {
        let mut out = std::io::stdout().lock();
        for adapter in &adapters {
            let profile = described(adapter);
            let kind = if adapter.is_cpu() { ", software on the CPU" } else { "" };
            writeln!(out, "{}", profile.name)?;
            writeln!(out, "  backend     {:?}, {}{kind}", profile.backend, adapter.driver())?;
            let features = &profile.features;
            let on: Vec<&str> = [
                ("f16", features.f16),
                ("subgroups", features.subgroups),
                ("integer-dot", features.integer_dot),
                ("timestamps", features.timestamps),
                ("immediates", features.immediates),
                ("pipeline-cache", features.pipeline_cache),
            ]
            .iter()
            .filter_map(|&(name, on)| on.then_some(name))
            .collect();
            writeln!(out, "  features    {}", if on.is_empty() { "none".to_owned() } else { on.join(", ") })?;
            if features.subgroups {
                writeln!(out, "  subgroups   {} to {} invocations", profile.subgroup.min, profile.subgroup.max)?;
            }
            for shape in &profile.cooperative_matrices {
                writeln!(out, "  matrix      {}x{}x{} {:?} into {:?}", shape.m, shape.n, shape.k, shape.ab, shape.acc)?;
            }
            let limits = &profile.limits;
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                out,
                "  memory      buffers of {:.0} MiB, bindings of {:.0} MiB, {} a stage",
                mib(limits.max_buffer_bytes),
                mib(limits.max_binding_bytes),
                limits.max_storage_buffers
            )?;
            writeln!(
                out,
                "  workgroups  {} invocations, {} bytes shared, {} a dimension",
                limits.max_workgroup_invocations, limits.max_workgroup_bytes, limits.max_workgroups_per_dimension
            )?;
        }
    }
    match adapters.is_empty() {
        true if wanted.is_empty() => Err(Failure::error(
            "no GPU adapter found: expected a Vulkan, Metal or DirectX 12 driver (Debian: mesa-vulkan-drivers)",
        )),
        true => Err(Failure::error(format!("adapter {wanted:?} not found; `anygpu adapters` lists those there are"))),
        false => Ok(()),
    }
}
