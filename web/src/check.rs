//! Every kernel against its reference on this browser and GPU, and the shaders that browsers are given.

use anygpu::gpu::Context;
use anygpu::gpu::pipeline::Uncompiled;
use anygpu::kernels::testing::Outcome;
use anygpu::kernels::{self, Case};
use anygpu::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::engine::call;
use crate::error::{bad_options, to_js};
use crate::host::{Host, now};
use crate::recovery::described;

/// What is checked.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    /// A stored profile to clip the device to.
    profile: Option<String>,
    /// Only cases with this in their name.
    filter: String,
}

/// Cases whose shaders are compiled side by side.
const BATCH: usize = 16;

/// Runs the cases; `on_row` gets each one's JSON and returns whether to go on. Returns the adapter and the counts as JSON.
#[wasm_bindgen]
pub async fn check(host: Host, options: String, on_row: js_sys::Function) -> std::result::Result<String, JsValue> {
    let checked = async {
        let options: Options = serde_json::from_str(&options).map_err(|error| bad_options(&error))?;
        let (adapter, context) = host.open(options.profile.as_deref()).await?;
        let counts = run(&host, &context, &options.filter, &on_row).await;
        let summary = described(&context, adapter.is_cpu());
        host.close();
        context.lose();
        let (passed, failed) = counts?;
        Ok::<_, Error>(json!({ "adapter": summary, "passed": passed, "failed": failed }).to_string())
    };
    checked.await.map_err(|error| to_js(&error))
}

async fn run(host: &Host, context: &Context, filter: &str, on_row: &js_sys::Function) -> Result<(usize, usize)> {
    let mut cases = kernels::cases_for(context.profile());
    cases.retain(|case| case.name.contains(filter));
    let (mut passed, mut failed) = (0, 0);
    for batch in cases.chunks(BATCH) {
        let mut shaders = Vec::new();
        for case in batch {
            let shader = shader(case, context)?;
            if !shaders.contains(&shader) {
                shaders.push(shader);
            }
        }
        host.compile_all(&shaders).await?;
        for case in batch {
            let start = now();
            let outcome = match case.run(context, None).await {
                Ok(outcome) => outcome,
                Err(error) if error.kind() == ErrorKind::DeviceLost => return Err(error),
                Err(error) => Outcome { name: case.name.clone(), nmse: f64::NAN, failure: Some(error.to_string()) },
            };
            match outcome.failure {
                None => passed += 1,
                Some(_) => failed += 1,
            }
            let row = json!({
                "name": outcome.name,
                "kernel": case.kernel.name(),
                "nmse": Some(outcome.nmse).filter(|nmse| !nmse.is_nan()),
                "failure": outcome.failure,
                "ms": now() - start,
            });
            let go_on = on_row.call1(&JsValue::NULL, &row.to_string().into());
            if go_on.is_ok_and(|answer| answer.is_falsy()) {
                return Err(Error::cancelled("cancelled by the caller"));
            }
        }
    }
    Ok((passed, failed))
}

fn shader(case: &Case, context: &Context) -> Result<Uncompiled> {
    let spec = case.kernel.spec(context.profile());
    let accesses = case.kernel.bindings().iter().map(|binding| binding.access).collect();
    Ok(Uncompiled { kernel: spec.kernel(), source: spec.render()?, accesses })
}

/// The WGSL of every kernel's cases as this browser gets it, with and without each of the adapter's abilities:
/// `on_source` gets `{ name, source }` as JSON, each source once.
#[wasm_bindgen]
pub async fn sources(host: Host, on_source: js_sys::Function) -> std::result::Result<(), JsValue> {
    let listed = async {
        let adapter = host.adapter().await?;
        let mut seen = std::collections::HashSet::new();
        for bits in 0..8u32 {
            let mut profile = adapter.profile().clone();
            let features = &mut profile.features;
            features.f16 &= bits & 1 == 0;
            features.subgroups &= bits & 2 == 0;
            features.integer_dot &= bits & 4 == 0;
            for case in kernels::cases_for(&profile) {
                let source = case.kernel.spec(&profile).render()?;
                if seen.insert(source.clone()) {
                    call(&on_source, &json!({ "name": case.name, "source": source }))?;
                }
            }
        }
        Ok::<_, Error>(())
    };
    listed.await.map_err(|error| to_js(&error))
}
