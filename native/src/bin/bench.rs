//! The benchmark: `cargo run --release --bin bench`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anygpu::format::source::{ByteSource, MappedFile};
use anygpu::generate::{Model, SessionOptions};
use anygpu::gpu::{Adapter, AdapterOptions, Context};
use anygpu::kernels::testing::nmse;
use anygpu::{DType, Error, Result};
use anygpu_benches::baseline::{Baseline, Request};
use anygpu_benches::report::{Report, Row};
use anygpu_benches::suite::{CHECK_NMSE, SUITES, Settings, Suites};
use anygpu_benches::{host, text};
use anygpu_native::{cpu, shipped};
use clap::Parser;
use vectors::{VECTOR_SUITES, VectorArguments};

#[cfg(feature = "burn")]
#[path = "bench/backends.rs"]
mod backends;
#[path = "bench/vectors.rs"]
mod vectors;

/// The suite of builds with the feature `burn`.
const BACKENDS: &str = "backends";

/// Measures anygpu on this machine, beside the CPU and any program that prints llama-bench's JSON.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  bench                                        the shipped model, all suites
  bench -m llama-2-7b.Q4_0.gguf --output out   a file; out/report.json, report.md, report.html
  bench --synthetic llama-2-7b --dtype q4_0    random weights made on the GPU
  bench --suite embed,search --encoder all-MiniLM-L6-v2      texts to vectors, and search among a million of them
  bench --suite backends --encoder all-MiniLM-L6-v2          the plan beside Burn modules, in a build with --features burn
  bench -m M.gguf --baseline 'llama.cpp-cuda=llama-bench -m {model} -p {n_prompt} -n {n_gen} -d {n_depth} -o json'"
)]
struct Arguments {
    /// A GGUF file [default: the shipped model]
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// The name in the report [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// A shape with random weights: llama-2-7b, llama-2-13b, llama-2-70b, llama-1b
    #[arg(long, conflicts_with = "model")]
    synthetic: Option<String>,
    /// The format of random weights
    #[arg(long, default_value = "q4_0", value_parser = |s: &str| s.parse::<DType>())]
    dtype: DType,
    /// Suites to run: kernels, load, prefill, decode, batch, streams, memory; embed, search and backends where asked for
    #[arg(long, value_delimiter = ',', default_values_t = SUITES.map(String::from))]
    suite: Vec<String>,
    #[command(flatten)]
    vectors: VectorArguments,
    /// Prompt lengths of the prefill suite [default: 128,512; 128 on a software adapter]
    #[arg(long, value_delimiter = ',')]
    n_prompt: Vec<usize>,
    /// Tokens to generate [default: 128; 16 on a software adapter]
    #[arg(long)]
    n_gen: Option<usize>,
    /// Tokens before the generation, in the decode suite [default: 0,4096; 0,256 on a software adapter]
    #[arg(long, value_delimiter = ',')]
    n_depth: Vec<usize>,
    /// Sequences side by side, in the suites batch and kernels
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Tokens before the generation of each, in the suites batch, kernels and streams [default: 512; 16 on a software adapter]
    #[arg(long)]
    batch_depth: Option<usize>,
    /// Streams side by side, in the streams suite
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    streams: Vec<usize>,
    /// Runs of each case, after one that warms up [default: 5; 2 on a software adapter]
    #[arg(long)]
    repeats: Option<usize>,
    /// Leave answers unchecked
    #[arg(long)]
    no_check: bool,
    /// Leave the CPU column out
    #[arg(long)]
    no_cpu: bool,
    /// NAME=COMMAND with {model} {n_prompt} {n_gen} {batch} {n_depth}: a program that prints llama-bench's JSON
    #[arg(long)]
    baseline: Vec<Baseline>,
    /// Part of the adapter's name
    #[arg(long)]
    adapter: Option<String>,
    /// Clip the device to a stored profile, or to that of a JSON file
    #[arg(long)]
    profile: Option<String>,
    /// A folder for report.json, report.md and report.html
    #[arg(long)]
    output: Option<PathBuf>,
    /// Print report.json instead of the table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match pollster::block_on(run(Arguments::parse())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            if error.kind() == anygpu::ErrorKind::Adapter {
                eprintln!(
                    "bench: without a GPU driver, `cargo xtask bench` installs a software one on Debian and Ubuntu"
                );
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool> {
    let known = [&SUITES[..], &VECTOR_SUITES, &[BACKENDS]].concat();
    if let Some(unknown) = arguments.suite.iter().find(|suite| !known.contains(&suite.as_str())) {
        return Err(Error::unsupported(format!("suite {unknown:?}: expected one of {}", known.join(", "))));
    }
    let wants_backends = arguments.suite.iter().any(|suite| suite == BACKENDS);
    if wants_backends && cfg!(not(feature = "burn")) {
        return Err(Error::unsupported("suite backends: expected a build with --features burn"));
    }
    let adapter = Adapter::request(&AdapterOptions { name: arguments.adapter.clone(), ..Default::default() }).await?;
    let clip = arguments.profile.as_deref().map(anygpu_native::clip::profile).transpose()?;
    let context = anygpu_native::open(&adapter, clip.as_ref()).await?;
    let mut report = Report { environment: host::environment(), ..Report::default() };
    report.environment.describe(&context, adapter.is_cpu());
    eprintln!("{} ({})", context.profile().name, context.driver());

    vectors::run(&arguments, &adapter, &context, &mut report).await?;
    #[cfg(feature = "burn")]
    if wants_backends {
        backends::run(&arguments, &adapter, &mut report).await?;
    }
    if arguments.suite.iter().any(|suite| SUITES.contains(&suite.as_str())) {
        run_model(&arguments, &adapter, &context, &mut report).await?;
    }
    if let Some(folder) = &arguments.output {
        for path in host::write(&report, folder)? {
            eprintln!("{}", path.display());
        }
    }
    print!("{}", if arguments.json { report.to_json() } else { text::terminal(&report) });
    Ok(report.failures().next().is_none())
}

/// The suites of a model that writes text.
async fn run_model(arguments: &Arguments, adapter: &Adapter, context: &Context, report: &mut Report) -> Result<()> {
    let start = Instant::now();
    let model = load(arguments, context).await?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let name = arguments.name.clone().unwrap_or_else(|| {
        let stem = arguments.model.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
        stem.unwrap_or_else(|| model.name().to_owned())
    });
    let usual = Settings::usual(adapter.is_cpu(), name);
    let list = |given: &[usize], usual: Vec<usize>| if given.is_empty() { usual } else { given.to_vec() };
    let settings = Settings {
        suites: arguments.suite.clone(),
        prompts: list(&arguments.n_prompt, usual.prompts),
        n_gen: arguments.n_gen.unwrap_or(usual.n_gen),
        depths: list(&arguments.n_depth, usual.depths),
        batches: arguments.batch.clone(),
        batch_depth: arguments.batch_depth.unwrap_or(usual.batch_depth),
        streams: arguments.streams.clone(),
        repeats: arguments.repeats.unwrap_or(usual.repeats).max(1),
        check: !arguments.no_check,
        ahead: usual.ahead,
        model: usual.model,
    };
    let clock = move || start.elapsed().as_secs_f64() * 1e3;
    let mut show = |row: &Row| {
        let rate = row.tokens_per_second.map_or(String::new(), |rate| format!(" {rate:.1} tokens/s"));
        let check = row.check.as_deref().map_or(String::new(), |check| format!(" ({check})"));
        eprintln!("  {} {} batch {}{rate}{check}", row.suite, row.test(), row.batch);
    };
    Suites::new(&model, &settings, &clock, report, &mut show).run(Some(load_ms)).await?;

    // A file is what other programs can read.
    if arguments.synthetic.is_none() {
        let file = match &arguments.model {
            Some(file) => file.clone(),
            None => shipped::file()?,
        };
        compare(arguments, &settings, &model, &file, report)?;
    }
    Ok(())
}

async fn load(arguments: &Arguments, context: &Context) -> Result<Model> {
    if let Some(shape) = &arguments.synthetic {
        return Model::synthetic(context, shape, arguments.dtype).await;
    }
    let source: Arc<dyn ByteSource> = match &arguments.model {
        Some(file) => Arc::new(MappedFile::open(file)?),
        None => shipped::source(),
    };
    Model::load(context, source, |_| {}).await
}

/// `ok`, or how far the CPU runtime's logits are from the plain path's; `None` where it does not take the file.
fn cpu_check(arguments: &Arguments, model: &Model, file: &Path) -> Result<Option<String>> {
    if arguments.no_check {
        return Ok(None);
    }
    let vocabulary = model.config().vocab_size;
    let tokens: Vec<u32> = (0..32).map(|i| ((i * 7919) % (vocabulary - 1) + 1) as u32).collect();
    let found = match cpu::Candle::load(file).and_then(|mut candle| candle.logits(&tokens)) {
        Ok(logits) => logits,
        Err(error) if error.kind() == anygpu::ErrorKind::Unsupported => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut plain = model.session(SessionOptions { context_length: 64, plain: true, ..Default::default() })?;
    let expected = pollster::block_on(plain.forward(0, &tokens))?;
    let error = nmse(&found, &expected);
    // candle, too, rounds activations to bytes where weights are quantised.
    Ok(Some(if error <= CHECK_NMSE { "ok".to_owned() } else { format!("logits NMSE {error:.1e}") }))
}

/// The same cases by the CPU and by the baselines.
fn compare(arguments: &Arguments, settings: &Settings, model: &Model, file: &Path, report: &mut Report) -> Result<()> {
    let wants = |suite: &str| settings.suites.iter().any(|s| s == suite);
    let room = model.config().context_length as u64;
    let base = Request {
        file: file.to_owned(),
        model: settings.model.clone(),
        dtype: model.dtype().name().to_owned(),
        synthetic: false,
        batch: 1,
        ..Request::default()
    };
    let mut requests = Vec::new();
    if wants("prefill") {
        requests.extend(settings.prompts.iter().map(|&n| Request { n_prompt: n as u64, ..base.clone() }));
    }
    let n_gen = settings.n_gen as u64;
    if wants("decode") {
        requests.extend(settings.depths.iter().map(|&d| Request { n_gen, n_depth: d as u64, ..base.clone() }));
    }
    if wants("batch") {
        let n_depth = settings.batch_depth as u64;
        requests.extend(settings.batches.iter().map(|&b| Request { batch: b as u64, n_gen, n_depth, ..base.clone() }));
    }
    requests.retain(|request| request.n_prompt.max(request.n_depth + request.n_gen) <= room);
    if !arguments.no_cpu && !requests.is_empty() {
        let agrees = cpu_check(arguments, model, file)?;
        for request in requests.iter().filter(|request| request.batch == 1) {
            eprintln!("  cpu: {} tokens of prompt, {} generated", request.n_prompt, request.n_gen);
            for mut row in cpu::rows(request, settings.repeats.clamp(1, 3))? {
                row.check = row.check.or_else(|| agrees.clone());
                report.rows.push(row);
            }
        }
    }
    for baseline in &arguments.baseline {
        for request in requests.iter().filter(|request| request.batch == 1 || baseline.takes_batch()) {
            if request.n_depth > 0 && !baseline.takes_depth() {
                continue;
            }
            eprintln!("  {}: {request:?}", baseline.name());
            report.rows.extend(baseline.run(request, Duration::from_secs(600))?);
        }
    }
    Ok(())
}
