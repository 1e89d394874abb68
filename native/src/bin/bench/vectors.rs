//! The suites `embed` and `search`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anygpu::embed::{Embedder, LoadOptions, ModelFiles};
use anygpu::gpu::{Adapter, Context};
use anygpu::{DType, Error, Result};
use anygpu_benches::baseline::Request;
use anygpu_benches::embed::{self, EmbedSettings};
use anygpu_benches::report::{Report, Row};
use anygpu_benches::search::{self, SearchSettings};
use anygpu_benches::suite;
use anygpu_native::cpu::vectors as cpu;

use super::Arguments;

/// The suites that run only where they are asked for.
pub const VECTOR_SUITES: [&str; 2] = ["embed", "search"];

/// What the suites `embed` and `search` take.
#[derive(clap::Args)]
pub struct VectorArguments {
    /// The suites embed and backends: a folder with model.safetensors, or a GGUF file (bert)
    #[arg(long)]
    pub encoder: Option<PathBuf>,
    /// The suites embed and backends: what matrices become at load [default: f16]
    #[arg(long, value_parser = |s: &str| s.parse::<DType>())]
    pub encoder_dtype: Option<DType>,
    /// The suites embed and backends: numbers of texts [default: 1,10,100,1000; 1,4 on a software adapter]
    #[arg(long, value_delimiter = ',')]
    pub texts: Vec<usize>,
    /// The suites embed and backends: tokens of a text
    #[arg(long, default_value_t = 128)]
    pub text_tokens: usize,
    /// The suite search: vectors of the index [default: 1000000; 20000 on a software adapter]
    #[arg(long)]
    vectors: Option<usize>,
    /// The suite search: numbers of a vector
    #[arg(long, default_value_t = 384)]
    dims: usize,
    /// The suite search: what vectors are kept as
    #[arg(long, default_value = "f16", value_parser = |s: &str| s.parse::<DType>())]
    vector_dtype: DType,
    /// The suite search: numbers of queries at once
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    queries: Vec<usize>,
    /// The suite search: vectors to find
    #[arg(long, default_value_t = 5)]
    top: usize,
}

/// Says a row on stderr.
pub fn show(row: &Row) {
    let rate = row.texts_per_second.map(|rate| format!(" {rate:.1} texts/s"));
    let rate = rate.or_else(|| Some(format!(" {:.1} queries/s", row.queries_per_second?))).unwrap_or_default();
    let ms = row.p50_ms.map_or(String::new(), |ms| format!(" {ms:.3} ms"));
    let check = row.check.as_deref().map_or(String::new(), |check| format!(" ({check})"));
    let note = row.note.as_deref().map_or(String::new(), |note| format!(", {note}"));
    eprintln!("  {} {} {} batch {}{rate}{ms}{note}{check}", row.engine, row.suite, row.test(), row.batch);
}

/// Runs those of the suites that are asked for.
pub async fn run(arguments: &Arguments, adapter: &Adapter, context: &Context, report: &mut Report) -> Result<()> {
    let wants = |suite: &str| arguments.suite.iter().any(|name| name == suite);
    if !VECTOR_SUITES.into_iter().any(wants) {
        return Ok(());
    }
    let own = &arguments.vectors;
    for (name, numbers) in [("--texts", &own.texts), ("--queries", &own.queries)] {
        if numbers.contains(&0) {
            return Err(Error::shape(format!("{name}: found 0, expected numbers from 1")));
        }
    }
    let software = adapter.is_cpu();
    let repeats = arguments.repeats.unwrap_or(if software { 2 } else { 20 }).max(1);
    if context.profile().features.timestamps {
        suite::ceilings(context, repeats.min(5), &mut report.environment).await?;
        context.finish().await?;
    }
    if wants("embed") {
        embed(arguments, software, repeats, context, report).await?;
    }
    if wants("search") {
        search(arguments, software, repeats, context, report).await?;
    }
    Ok(())
}

async fn embed(
    arguments: &Arguments,
    software: bool,
    repeats: usize,
    context: &Context,
    report: &mut Report,
) -> Result<()> {
    let own = &arguments.vectors;
    let folder = own.encoder.as_ref().ok_or_else(|| Error::unsupported("suite embed: expected --encoder FOLDER"))?;
    let dtype = own.encoder_dtype.unwrap_or(DType::F16);
    let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
    let mut embedder = Embedder::load(context, ModelFiles::open(folder)?, &options, |_| {}).await?;
    let plain = LoadOptions { plain: true, ..options };
    let mut plain = match arguments.no_check {
        true => None,
        false => Some(Embedder::load(context, ModelFiles::open(folder)?, &plain, |_| {}).await?),
    };
    let stem = folder.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let settings = EmbedSettings {
        batches: match own.texts[..] {
            [] if software => vec![1, 4],
            [] => vec![1, 10, 100, 1000],
            _ => own.texts.clone(),
        },
        tokens: own.text_tokens,
        repeats,
        model: arguments.name.clone().or(stem).unwrap_or_else(|| "encoder".to_owned()),
        dtype: dtype.name().to_owned(),
    };
    if !(3..=embedder.max_tokens()).contains(&settings.tokens) {
        let (found, most) = (settings.tokens, embedder.max_tokens());
        return Err(Error::shape(format!("--text-tokens {found}: expected 3 to {most}, which the model reads")));
    }
    let start = Instant::now();
    let clock = move || start.elapsed().as_secs_f64() * 1e3;
    embed::run(&mut embedder, plain.as_mut(), &settings, &clock, report, &mut show).await?;
    if !arguments.no_cpu {
        for row in cpu::embed_rows(folder, &settings, plain.as_mut()).await? {
            show(&row);
            report.rows.push(row);
        }
    }
    for &batch in &settings.batches {
        let request = Request {
            file: folder.clone(),
            model: settings.model.clone(),
            dtype: settings.dtype.clone(),
            batch: batch as u64,
            n_prompt: settings.tokens as u64,
            ..Request::default()
        };
        baselines(arguments, &request, "embed", report)?;
    }
    Ok(())
}

async fn search(
    arguments: &Arguments,
    software: bool,
    repeats: usize,
    context: &Context,
    report: &mut Report,
) -> Result<()> {
    let own = &arguments.vectors;
    let settings = SearchSettings {
        vectors: own.vectors.unwrap_or(if software { 20_000 } else { 1_000_000 }),
        dims: own.dims,
        dtype: own.vector_dtype,
        queries: own.queries.clone(),
        k: own.top,
        repeats,
        check: !arguments.no_check,
    };
    let start = Instant::now();
    let clock = move || start.elapsed().as_secs_f64() * 1e3;
    search::run(context, &settings, &clock, report, &mut show).await?;
    if !arguments.no_cpu {
        for row in cpu::search_rows(&settings)? {
            show(&row);
            report.rows.push(row);
        }
    }
    for &count in &settings.queries {
        let request = Request {
            // No file: `{model}` is vectors by dimensions.
            file: settings.model().into(),
            model: settings.model(),
            dtype: settings.dtype.name().to_owned(),
            batch: count as u64,
            ..Request::default()
        };
        baselines(arguments, &request, "search", report)?;
    }
    Ok(())
}

/// Baselines whose command names the suite: `--baseline 'pytorch-cuda=python baseline.py embed {model} …'`.
pub fn baselines(arguments: &Arguments, request: &Request, suite: &str, report: &mut Report) -> Result<()> {
    for baseline in &arguments.baseline {
        if !baseline.words(request).iter().any(|word| word == suite) {
            continue;
        }
        eprintln!("  {}: {request:?}", baseline.name());
        for row in baseline.run(request, Duration::from_secs(600))? {
            show(&row);
            report.rows.push(row);
        }
    }
    Ok(())
}
