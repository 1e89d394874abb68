//! `report.json`: the same keys from anygpu and from every baseline.

use crate::stats;
use anygpu::{Error, Result};
use serde::{Deserialize, Serialize};

/// The schema that this crate writes and reads.
pub const SCHEMA: u32 = 1;

/// The engine name of our own rows. Ratios are this engine's rate over another's.
pub const ANYGPU: &str = "anygpu";

/// One benchmark run: where it ran and what it measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// The machine, the adapter and the command.
    pub environment: Environment,
    /// One row for each engine and case, in the order they were run.
    pub rows: Vec<Row>,
}

/// Where a run took place. What is not known is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Start of the run, UTC, as `2026-11-22T10:20:30Z`.
    pub date: Option<String>,
    /// The machine.
    pub host: Host,
    /// The GPU and its driver.
    pub adapter: Adapter,
    /// Name of the profile that the device was opened with.
    pub profile: Option<String>,
    /// Measured copy bandwidth, bytes read plus bytes written a second. The whole of [`Row::bandwidth_share`].
    pub copy_bytes_per_second: Option<f64>,
    /// Measured rate of a large matrix product, operations (two for a multiply-add) a second. The whole of
    /// [`Row::matrix_share`].
    pub matrix_operations_per_second: Option<f64>,
    /// Version of the anygpu crate.
    pub version: Option<String>,
    /// Git revision of the anygpu checkout, with `+` after it when files had been changed.
    pub revision: Option<String>,
    /// The command line of the run.
    pub command: Option<String>,
}

impl Environment {
    /// Says which adapter the run has, and what its device was opened with.
    pub fn describe(&mut self, context: &anygpu::gpu::Context, is_cpu: bool) {
        let profile = context.profile();
        self.adapter.name = Some(profile.name.clone());
        self.adapter.driver = Some(context.driver().to_owned());
        let backend = format!("{:?}", profile.backend).to_lowercase();
        self.adapter.backend = Some(if is_cpu { format!("{backend} on the cpu") } else { backend });
        self.adapter.features = [
            (profile.features.f16, "f16"),
            (profile.features.subgroups, "subgroups"),
            (profile.features.integer_dot, "integer-dot"),
            (!profile.cooperative_matrices.is_empty(), "cooperative-matrix"),
            (profile.features.timestamps, "timestamps"),
        ]
        .into_iter()
        .filter(|(has, _)| *has)
        .map(|(_, name)| name.to_owned())
        .collect();
        self.profile = Some(profile.name.clone());
    }
}

/// The machine of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Operating system and its version.
    pub os: Option<String>,
    /// Processor name and how many hardware threads the run could use.
    pub cpu: Option<String>,
    /// Main memory.
    pub memory_bytes: Option<u64>,
}

/// The GPU of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adapter {
    /// Name, as the driver gives it.
    pub name: Option<String>,
    /// Driver and its version.
    pub driver: Option<String>,
    /// `vulkan`, `metal`, `dx12` or `webgpu`.
    pub backend: Option<String>,
    /// Features that the device was opened with.
    pub features: Vec<String>,
}

/// One case measured on one engine. A value that is not known is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `anygpu`, or the name of a baseline: `llama.cpp-cuda`, `cpu:candle-0.11`.
    pub engine: String,
    /// `kernels`, `load`, `prefill`, `decode`, `batch`, `streams`, `memory`, `embed` or `search`.
    pub suite: String,
    /// Name of the model: a file's stem or a synthetic shape's name. Empty in kernel rows that belong to no model.
    pub model: String,
    /// Whether the weights were made up, for timing only.
    #[serde(default)]
    pub synthetic: bool,
    /// Type of the weights: `q4_0`, `f16`.
    pub dtype: String,
    /// Sequences at once.
    pub batch: u64,
    /// Tokens of prompt that were timed, for each sequence.
    pub n_prompt: u64,
    /// Tokens generated, for each sequence.
    pub n_gen: u64,
    /// Tokens in each sequence's context before the timing began.
    pub n_depth: u64,
    /// Tokens of all sequences together a second.
    pub tokens_per_second: Option<f64>,
    /// Half of the samples took no longer. A sample is one prefill of all prompts, one decode step, one kernel run.
    pub p50_ms: Option<f64>,
    /// 95 of 100 samples took no longer.
    pub p95_ms: Option<f64>,
    /// 99 of 100 samples took no longer.
    pub p99_ms: Option<f64>,
    /// The most GPU memory that was allocated at once.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes that must be moved, over the time, over the measured copy bandwidth.
    pub bandwidth_share: Option<f64>,
    /// `ok` when the answer was compared and agreed; otherwise what was wrong. Null when nobody compared.
    pub check: Option<String>,

    /// Texts a second, in the suite `embed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts_per_second: Option<f64>,
    /// Queries a second, in the suite `search`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries_per_second: Option<f64>,
    /// Operations over the time, over the measured matrix rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix_share: Option<f64>,
    /// What a row of its kind needs beyond the keys above to be told apart: kernel and shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes that one sample must move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Operations of one sample, two for a multiply-add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    /// How many samples the percentiles come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// The first, cold run: pipelines compiled, caches empty. In the load suite: from start to first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_ms: Option<f64>,
    /// From opening the file until the weights lie on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<f64>,
    /// Time that the host's processors spent on one sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_cpu_ms: Option<f64>,
    /// Perplexity of the model on the run's text: the accuracy column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Anything a reader must know about this row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self { schema: SCHEMA, environment: Environment::default(), rows: Vec::new() }
    }
}

impl Report {
    /// The report as indented JSON, ending in a line feed.
    pub fn to_json(&self) -> String {
        // Structs of strings, numbers and lists always serialise: a number that is not finite becomes null.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    /// Reads a report back.
    ///
    /// # Errors
    /// `Unsupported` for another schema, `Format` for text that is not a report.
    pub fn from_json(json: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: serde_json::Value,
        }
        let bad = |e: serde_json::Error| Error::format(format!("report: {e}"));
        let head: Head = serde_json::from_str(json).map_err(bad)?;
        if head.schema != SCHEMA {
            return Err(Error::unsupported(format!("report: schema is {}, this program reads {SCHEMA}", head.schema)));
        }
        serde_json::from_str(json).map_err(bad)
    }

    /// Rows whose answer was compared and did not agree.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.verdict() == Verdict::Failed)
    }
}

/// What [`Row::check`] says, for a program to decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Compared and agreed.
    Ok,
    /// Compared and differed.
    Failed,
    /// The engine cannot run the case at all.
    Unsupported,
    /// Nobody compared.
    Unchecked,
}

impl Row {
    /// A row with its names and nothing measured: batch 1, no tokens.
    pub fn new(
        engine: impl Into<String>,
        suite: impl Into<String>,
        model: impl Into<String>,
        dtype: impl Into<String>,
    ) -> Self {
        Self {
            engine: engine.into(),
            suite: suite.into(),
            model: model.into(),
            dtype: dtype.into(),
            batch: 1,
            ..Self::default()
        }
    }

    /// The same row for these numbers of sequences, prompt tokens, generated tokens, and tokens before the start.
    #[must_use]
    pub fn case(mut self, batch: u64, n_prompt: u64, n_gen: u64, n_depth: u64) -> Self {
        (self.batch, self.n_prompt, self.n_gen, self.n_depth) = (batch, n_prompt, n_gen, n_depth);
        self
    }

    /// The same row with its percentiles from `samples_ms`, null where there are too few ([`stats::percentile`]).
    #[must_use]
    pub fn with_samples(mut self, samples_ms: &[f64]) -> Self {
        self.samples = Some(samples_ms.len() as u64);
        self.p50_ms = stats::percentile(samples_ms, 50.0);
        self.p95_ms = stats::percentile(samples_ms, 95.0);
        self.p99_ms = stats::percentile(samples_ms, 99.0);
        self
    }

    /// What [`Row::check`] says.
    pub fn verdict(&self) -> Verdict {
        match self.check.as_deref() {
            None => Verdict::Unchecked,
            Some("ok") => Verdict::Ok,
            Some("unsupported") => Verdict::Unsupported,
            Some(_) => Verdict::Failed,
        }
    }

    /// The case as llama-bench names it: `pp512`, `tg128`, `tg128 @ d4096`, or the row's own name.
    pub fn test(&self) -> String {
        let mut test = self.name.clone().unwrap_or_default();
        let mut add = |joint: &str, part: String| {
            if !test.is_empty() {
                test.push_str(joint);
            }
            test.push_str(&part);
        };
        if self.n_prompt > 0 {
            add(" ", format!("pp{}", self.n_prompt));
        }
        if self.n_gen > 0 {
            add(if self.n_prompt > 0 { "+" } else { " " }, format!("tg{}", self.n_gen));
        }
        if self.n_depth > 0 {
            add(" ", format!("@ d{}", self.n_depth));
        }
        test
    }
}

/// The suite that a row of so many sequences, prompt tokens and generated tokens belongs to: `batch` for several
/// sequences at once, otherwise `prefill` or `decode`.
pub fn suite_of(batch: u64, n_gen: u64) -> &'static str {
    match (batch, n_gen) {
        (2.., _) => "batch",
        (_, 0) => "prefill",
        _ => "decode",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_exactly_the_agreed_keys() {
        let row = Row::new("anygpu", "decode", "llama-2-7b", "q4_0").case(1, 0, 128, 0);
        let json = serde_json::to_value(Report { rows: vec![row], ..Report::default() }).unwrap();
        let keys = |v: &serde_json::Value| {
            let mut keys = v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(keys(&json), "environment rows schema");
        assert_eq!(
            keys(&json["rows"][0]),
            "bandwidth_share batch check dtype engine model n_depth n_gen n_prompt p50_ms p95_ms p99_ms \
             peak_memory_bytes suite synthetic tokens_per_second"
        );
        assert!(json["rows"][0]["p99_ms"].is_null());
        assert_eq!(json["schema"], 1);
    }

    #[test]
    fn numbers_that_are_not_finite_become_null() {
        let row = Row { tokens_per_second: Some(f64::INFINITY), ..Row::new("a", "decode", "m", "f16") };
        let report = Report { rows: vec![row], ..Report::default() };
        assert_eq!(Report::from_json(&report.to_json()).unwrap().rows[0].tokens_per_second, None);
    }

    #[test]
    fn refuses_what_is_not_this_schema() {
        let cases = [
            (r#"{"schema": 2, "rows": "other"}"#, "report: schema is 2, this program reads 1"),
            (r#"{"schema": "x"}"#, r#"report: schema is "x", this program reads 1"#),
            (r#"{"rows": []}"#, "missing field `schema`"),
            (r#"{"schema": 1, "environment": {}, "rows": [{"suite": "decode"}]}"#, "missing field `engine`"),
            ("not json", "report: expected"),
        ];
        for (json, expected) in cases {
            let error = Report::from_json(json).expect_err(json).to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn names_tests_as_llama_bench_does() {
        let cases = [
            ((512, 0, 0), None, "pp512"),
            ((0, 128, 0), None, "tg128"),
            ((0, 128, 4096), None, "tg128 @ d4096"),
            ((512, 128, 0), None, "pp512+tg128"),
            ((0, 0, 0), Some("matvec 4096×4096"), "matvec 4096×4096"),
            ((0, 64, 8), Some("greedy"), "greedy tg64 @ d8"),
            ((0, 0, 0), None, ""),
        ];
        for ((p, g, d), name, expected) in cases {
            let row = Row { name: name.map(String::from), ..Row::default() }.case(1, p, g, d);
            assert_eq!(row.test(), expected);
        }
    }

    #[test]
    fn percentiles_of_few_samples_stay_null() {
        let row = Row::default().with_samples(&[3.0, 1.0, 2.0]);
        assert_eq!((row.samples, row.p50_ms, row.p95_ms, row.p99_ms), (Some(3), Some(2.0), None, None));
    }
}
