//! The suite `backends`: one model and one input through this crate's plan and through the same model as a Burn module, on
//! this crate's kernels, on Burn's, on the CPU and on CUDA. Every sample ends with the answer on the host, and every answer is
//! first checked against the plain f32 plan.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anygpu::embed::{Embedder, LoadOptions, ModelFiles};
use anygpu::format::source::{ByteSource, MappedFile};
use anygpu::format::{Gguf, Safetensors};
use anygpu::generate::{Model, SessionOptions};
use anygpu::gpu::Adapter;
use anygpu::kernels::testing::nmse;
use anygpu::models::bert::burn::Bert;
use anygpu::models::bert::file::{from_gguf, from_safetensors};
use anygpu::models::bert::{Config, Pooling};
use anygpu::models::burn_kernels::{self, Gpu, Kernels};
use anygpu::models::llama::burn::Llama;
use anygpu::models::weights::TensorFile;
use anygpu::{DType, Error, Result};
use anygpu_benches::embed::{collect, token_ids, verdict};
use anygpu_benches::report::{ANYGPU, Report, Row};
use anygpu_benches::stats;
use anygpu_benches::suite::CHECK_NMSE;
use anygpu_native::shipped;
use burn::tensor::{Device, Tensor};

use super::Arguments;
use super::vectors::{baselines, show};

/// A module's engine: where it runs.
struct Engine {
    name: &'static str,
    device: Device,
    kernels: Kernels,
    /// Runs of each case.
    repeats: usize,
}

/// What is measured.
struct Case {
    name: &'static str,
    model: String,
    dtype: String,
    batch: u64,
    n_prompt: u64,
    n_gen: u64,
}

impl Case {
    fn row(&self, engine: &str, samples: &[f64], first_ms: f64, check: Option<String>) -> Row {
        let mut row = Row {
            name: Some(self.name.to_owned()),
            first_ms: Some(first_ms),
            check,
            ..Row::new(engine, "backends", &self.model, &self.dtype)
        }
        .case(self.batch, self.n_prompt, self.n_gen, 0)
        .with_samples(samples);
        let median = stats::median(samples);
        let tokens = if self.n_gen > 0 { 1 } else { self.batch * self.n_prompt };
        row.tokens_per_second = median.map(|ms| tokens as f64 / ms * 1e3);
        row.texts_per_second = median.filter(|_| self.name == "tokens").map(|ms| self.batch as f64 / ms * 1e3);
        row
    }
}

/// Runs the suite.
pub async fn run(arguments: &Arguments, adapter: &Adapter, report: &mut Report) -> Result<()> {
    let software = adapter.is_cpu();
    let repeats = arguments.repeats.unwrap_or(if software { 2 } else { 20 }).max(1);
    let gpu = burn_kernels::open(adapter).await?;
    let engine = |name, device: &Device, kernels, repeats| Engine { name, device: device.clone(), kernels, repeats };
    let mut engines = vec![
        engine("burn-wgpu+anygpu", &gpu.device, gpu.kernels(), repeats),
        engine("burn-wgpu", &gpu.device, Kernels::Burn, repeats),
    ];
    #[cfg(feature = "burn-cuda")]
    engines.push(engine("burn-cuda", &Device::cuda(0usize), Kernels::Burn, repeats));
    if !arguments.no_cpu {
        engines.push(engine("burn-cpu", &Device::flex(), Kernels::Burn, repeats.min(3)));
    }
    if let Some(folder) = arguments.vectors.encoder.as_deref() {
        encoder(arguments, folder, software, repeats, &gpu, &engines, report).await?;
    }
    if arguments.vectors.encoder.is_none() || arguments.model.is_some() {
        decoder(arguments, software, repeats, &gpu, &engines, report).await?;
    }
    Ok(())
}

fn push(row: Row, report: &mut Report) {
    show(&row);
    report.rows.push(row);
}

/// The first run and the others, in milliseconds, and the last answer.
fn time<T>(repeats: usize, mut once: impl FnMut() -> Result<T>) -> Result<(f64, Vec<f64>, T)> {
    let mut timed = || -> Result<(f64, T)> {
        let start = Instant::now();
        let answer = once()?;
        Ok((start.elapsed().as_secs_f64() * 1e3, answer))
    };
    let (first, mut answer) = timed()?;
    let mut samples = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let (ms, last) = timed()?;
        samples.push(ms);
        answer = last;
    }
    Ok((first, samples, answer))
}

/// A tensor's values, once they are on the host.
fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |error: &dyn std::fmt::Debug| Error::adapter(format!("Burn's runtime: {error:?}"));
    let data = tensor.try_into_data().map_err(|error| failed(&error))?;
    data.try_into_vec().map_err(|error| failed(&error))
}

async fn tensors(folder: &Path, dtype: DType) -> Result<(Config, TensorFile)> {
    if folder.is_dir() {
        let read = |name: &str| std::fs::read(folder.join(name)).map_err(|error| Error::from(error).context(name));
        let config = Config::from_json(&read("config.json")?)?;
        let file = Safetensors::open(Arc::new(MappedFile::open(folder.join("model.safetensors"))?)).await?;
        let tensors = from_safetensors(&file, &config, Some(dtype))?;
        return Ok((config, tensors));
    }
    let gguf = Gguf::open(Arc::new(MappedFile::open(folder)?)).await?;
    let shape = |name: &str| gguf.tensor(name).map(|tensor| tensor.shape.clone());
    let (config, _) = Config::from_metadata(gguf.metadata(), shape)?;
    let tensors = from_gguf(&gguf, &config, Some(dtype))?;
    Ok((config, tensors))
}

/// Texts of one length to vectors.
async fn encoder(
    arguments: &Arguments,
    folder: &Path,
    software: bool,
    repeats: usize,
    gpu: &Gpu,
    engines: &[Engine],
    report: &mut Report,
) -> Result<()> {
    let own = &arguments.vectors;
    let dtype = own.encoder_dtype.unwrap_or(DType::F16);
    let usual = if software { vec![1, 4] } else { vec![1, 10, 100] };
    let batches = if own.texts.is_empty() { usual } else { own.texts.clone() };
    let stem = folder.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let model = arguments.name.clone().or(stem).unwrap_or_else(|| "encoder".to_owned());
    // Mean and length 1 whatever the files say: all engines do the same.
    let options = LoadOptions {
        dtype: Some(dtype),
        pooling: Some(Pooling::Mean),
        normalize: Some(true),
        ..LoadOptions::default()
    };
    let mut embedder = Embedder::load(&gpu.context, ModelFiles::open(folder)?, &options, |_| {}).await?;
    let plain = LoadOptions { plain: true, ..options };
    let mut plain = Embedder::load(&gpu.context, ModelFiles::open(folder)?, &plain, |_| {}).await?;
    let (config, file) = tensors(folder, dtype).await?;
    for &batch in &batches {
        let ids = token_ids(batch, own.text_tokens, config.vocab_size);
        let slices: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let few = batch.min(4);
        let expected = match arguments.no_check {
            true => None,
            false => Some(collect(plain.stream_tokens(&ids[..few]), few).await?),
        };
        let check = |found: &[Vec<f32>]| Some(verdict(&found[..few.min(found.len())], expected.as_deref()?));
        let case = Case {
            name: "tokens",
            model: model.clone(),
            dtype: dtype.name().to_owned(),
            batch: batch as u64,
            n_prompt: own.text_tokens as u64,
            n_gen: 0,
        };
        let (first, samples, vectors) =
            time(repeats, || pollster::block_on(collect(embedder.stream_tokens(&ids), batch)))?;
        push(case.row(ANYGPU, &samples, first, check(&vectors)), report);
        for engine in engines {
            let bert = Bert::load(config.clone(), &file, &engine.device, &engine.kernels).await?;
            let (first, samples, vectors) =
                time(engine.repeats, || values(bert.embed(&slices, Pooling::Mean, true)?))?;
            let vectors: Vec<Vec<f32>> = vectors.chunks_exact(config.d_model).map(<[f32]>::to_vec).collect();
            push(case.row(engine.name, &samples, first, check(&vectors)), report);
        }
        let request = anygpu_benches::baseline::Request {
            file: folder.to_owned(),
            model: model.clone(),
            dtype: case.dtype.clone(),
            batch: batch as u64,
            n_prompt: case.n_prompt,
            ..Default::default()
        };
        let before = report.rows.len();
        baselines(arguments, &request, "embed", report)?;
        report.rows[before..].iter_mut().for_each(|row| row.suite = "backends".to_owned());
    }
    Ok(())
}

/// A prompt, and tokens one by one behind it.
async fn decoder(
    arguments: &Arguments,
    software: bool,
    repeats: usize,
    gpu: &Gpu,
    engines: &[Engine],
    report: &mut Report,
) -> Result<()> {
    let source: Arc<dyn ByteSource> = match &arguments.model {
        Some(file) => Arc::new(MappedFile::open(file)?),
        None => shipped::source(),
    };
    let model = Model::load(&gpu.context, source.clone(), |_| {}).await?;
    let gguf = Gguf::open(source).await?;
    let vocabulary = model.config().vocab_size;
    let prompt_length = arguments.n_prompt.first().copied().unwrap_or(128);
    let n_gen = arguments.n_gen.unwrap_or(if software { 8 } else { 64 });
    let tokens: Vec<u32> = (0..prompt_length + n_gen).map(|i| ((i * 7919) % (vocabulary - 1) + 1) as u32).collect();
    let (prompt, rest) = tokens.split_at(prompt_length);
    let options = |plain| SessionOptions { context_length: tokens.len(), plain, ..Default::default() };
    let expected = match arguments.no_check {
        true => None,
        false => {
            let mut plain = model.session(options(true))?;
            let after_prompt = plain.forward(0, prompt).await?;
            let at_the_end = if rest.is_empty() { Vec::new() } else { plain.forward(0, rest).await? };
            Some([after_prompt, at_the_end])
        }
    };
    let check = |found: &[f32], at: usize| {
        let error = nmse(found, &expected.as_ref()?[at]);
        Some(if error <= CHECK_NMSE { "ok".to_owned() } else { format!("logits NMSE {error:.1e}") })
    };
    let stem = arguments.model.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    let name = arguments.name.clone().or(stem).unwrap_or_else(|| model.name().to_owned());
    let case = |name_of: &'static str, n_prompt: usize, n_gen: usize| Case {
        name: name_of,
        model: name.clone(),
        dtype: model.dtype().name().to_owned(),
        batch: 1,
        n_prompt: n_prompt as u64,
        n_gen: n_gen as u64,
    };
    let (prefill, decode) = (case("prompt", prompt_length, 0), case("step", 0, n_gen));

    let mut session = model.session(options(false))?;
    let (first, samples, logits) = time(repeats, || {
        session.clear(0);
        pollster::block_on(session.forward(0, prompt))
    })?;
    push(prefill.row(ANYGPU, &samples, first, check(&logits, 0)), report);
    if let Some((samples, first, logits)) = steps(rest, |token| pollster::block_on(session.forward(0, &[token])))? {
        push(decode.row(ANYGPU, &samples, first, check(&logits, 1)), report);
    }
    for engine in engines {
        let llama = Llama::load(&gguf, &engine.device, &engine.kernels).await?;
        let mut cache = llama.cache(tokens.len());
        let (first, samples, logits) = time(engine.repeats, || {
            cache = llama.cache(tokens.len());
            values(llama.forward_last(prompt, &mut cache)?)
        })?;
        push(prefill.row(engine.name, &samples, first, check(&logits, 0)), report);
        if let Some((samples, first, logits)) = steps(rest, |token| values(llama.forward_last(&[token], &mut cache)?))?
        {
            push(decode.row(engine.name, &samples, first, check(&logits, 1)), report);
        }
    }
    Ok(())
}

/// The time of each step but the first, that of the first, and the last answer.
fn steps(tokens: &[u32], mut step: impl FnMut(u32) -> Result<Vec<f32>>) -> Result<Option<(Vec<f64>, f64, Vec<f32>)>> {
    let mut samples = Vec::with_capacity(tokens.len());
    let mut logits = Vec::new();
    for &token in tokens {
        let start = Instant::now();
        logits = step(token)?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    if samples.len() < 2 {
        return Ok(None);
    }
    let first = samples.remove(0);
    Ok(Some((samples, first, logits)))
}
