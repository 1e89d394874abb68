//! The benchmark's suites on a loaded model, the same as natively.

use anygpu::{Error, Result};
use anygpu_benches::report::{Environment, Host as Machine, Report, Row};
use anygpu_benches::suite::{SUITES, Settings, Suites};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

use crate::engine::{Engine, Loaded};
use crate::error::{bad_options, to_js};
use crate::host::now;

/// What is measured, and where; without a list all suites at their usual sizes.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    suites: Option<Vec<String>>,
    prompts: Option<Vec<usize>>,
    depths: Option<Vec<usize>>,
    batches: Option<Vec<usize>>,
    batch_depth: Option<usize>,
    tokens: Option<usize>,
    repeats: Option<usize>,
    check: Option<bool>,
    model: Option<String>,
    /// The browser and its system, as it names itself.
    os: Option<String>,
    cpu: Option<String>,
    date: Option<String>,
    command: Option<String>,
}

#[wasm_bindgen]
impl Engine {
    /// Runs suites; `on_row` gets each row as JSON. Returns `report.json`. `options` is JSON.
    pub async fn benchmark(&self, options: String, on_row: js_sys::Function) -> std::result::Result<String, JsValue> {
        self.cancelled.set(false);
        let run = async {
            let options: Options = serde_json::from_str(&options).map_err(|error| bad_options(&error))?;
            let loaded = self.take().await?;
            let report = self.run_suites(&loaded, options, &on_row).await;
            self.give_back(loaded);
            Ok::<_, Error>(report?.to_json())
        };
        run.await.map_err(|error| to_js(&error))
    }
}

impl Engine {
    async fn run_suites(&self, loaded: &Loaded, options: Options, on_row: &js_sys::Function) -> Result<Report> {
        let model = &loaded.model;
        let name = options.model.unwrap_or_else(|| model.name().to_owned());
        let mut settings = Settings::usual(loaded.is_cpu, name);
        if let Some(suites) = options.suites {
            if let Some(unknown) = suites.iter().find(|suite| !SUITES.contains(&suite.as_str())) {
                return Err(Error::unsupported(format!("suite {unknown:?}: expected one of {}", SUITES.join(", "))));
            }
            settings.suites = suites;
        }
        settings.prompts = options.prompts.unwrap_or(settings.prompts);
        settings.depths = options.depths.unwrap_or(settings.depths);
        settings.batches = options.batches.unwrap_or(settings.batches);
        settings.batch_depth = options.batch_depth.unwrap_or(settings.batch_depth);
        settings.n_gen = options.tokens.unwrap_or(settings.n_gen).max(1);
        settings.repeats = options.repeats.unwrap_or(settings.repeats).max(1);
        settings.check = options.check.unwrap_or(settings.check);
        // As generation has them, so that it is what is measured.
        settings.ahead = self.ahead();
        let mut environment = Environment {
            date: options.date,
            host: Machine { os: options.os, cpu: options.cpu, memory_bytes: None },
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            command: options.command,
            ..Environment::default()
        };
        environment.describe(&loaded.context, loaded.is_cpu);
        let mut report = Report { environment, ..Report::default() };
        let mut show = |row: &Row| {
            let row = serde_json::to_string(row).unwrap_or_default();
            // A row that the page does not take is in the report all the same.
            let _ = on_row.call1(&JsValue::NULL, &row.into());
        };
        let stop = || self.cancelled.get();
        let clock = || now();
        let suites = Suites::new(model, &settings, &clock, &mut report, &mut show);
        suites.until(&stop).run(Some(self.load_ms())).await?;
        Ok(report)
    }
}
