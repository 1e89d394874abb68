//! Trains a classifier on the vectors of a frozen encoder with Burn's autodiff, and writes it to a file that
//! `anygpu classify` runs.
//!
//! ```text
//! cargo run --release --package anygpu-native --features burn --example train_head -- \
//!     all-MiniLM-L6-v2 benches/heads/feedback.tsv feedback.safetensors
//! anygpu classify -m all-MiniLM-L6-v2 --head feedback.safetensors "It crashes when I press save."
//! ```
//!
//! The encoder runs on this crate's kernels, the head on Burn's, both on one device. A line of the data is a label, a tab
//! and a text; every fifth is held out.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anygpu::embed::burn_head::{TrainOptions, train};
use anygpu::format::Safetensors;
use anygpu::format::source::MappedFile;
use anygpu::gpu::Adapter;
use anygpu::models::bert::burn::Bert;
use anygpu::models::bert::file::from_safetensors;
use anygpu::models::bert::{Config, Pooling};
use anygpu::models::burn_kernels;
use anygpu::tokenizer::{EncodeOptions, Tokenizer};
use anygpu::{Error, Result};

/// Texts that the encoder takes at once.
const BATCH: usize = 32;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, head] = &arguments[..] else {
        eprintln!("usage: train_head MODEL_FOLDER DATA.tsv HEAD.safetensors");
        return ExitCode::from(2);
    };
    match pollster::block_on(run(Path::new(model), Path::new(data), Path::new(head))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("train_head: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(model: &Path, data: &Path, out: &Path) -> Result<()> {
    let text = std::fs::read_to_string(data).map_err(|error| Error::from(error).context(data.display()))?;
    let (labels, examples) = examples(&text)?;

    let gpu = burn_kernels::open(&Adapter::request(&Default::default()).await?).await?;
    let read = |name: &str| std::fs::read(model.join(name)).map_err(|error| Error::from(error).context(name));
    let config = Config::from_json(&read("config.json")?)?;
    let tokenizer = Tokenizer::from_json(&read("tokenizer.json")?)?;
    let file = Safetensors::open(Arc::new(MappedFile::open(model.join("model.safetensors"))?)).await?;
    let tensors = from_safetensors(&file, &config, None)?;
    let bert = Bert::load(config, &tensors, &gpu.device, &gpu.kernels()).await?;

    let mut batches = Vec::new();
    for batch in examples.chunks(BATCH) {
        let encode = |(_, text): &(usize, &str)| {
            tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true })
        };
        let tokens = batch.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let texts: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        batches.push(bert.embed(&texts, Pooling::Mean, true)?);
    }
    let vectors = burn::tensor::Tensor::cat(batches, 0);
    let is_held_out = |index: usize| index % 5 == 4;
    let (held_out, kept): (Vec<usize>, Vec<usize>) = (0..examples.len()).partition(|&index| is_held_out(index));
    let rows = |chosen: &[usize]| {
        let numbers: Vec<i32> = chosen.iter().map(|&index| index as i32).collect();
        vectors.clone().select(0, burn::tensor::Tensor::from_ints(&numbers[..], &gpu.device))
    };
    let classes: Vec<usize> = kept.iter().map(|&index| examples[index].0).collect();
    let head = train(labels, &rows(&kept), &classes, &TrainOptions::default())?;

    let values: Vec<f32> = rows(&held_out).into_data().iter().collect();
    let mut right = 0;
    for (vector, &index) in values.chunks_exact(head.dimensions()).zip(&held_out) {
        let (label, _) = head.classify(vector)?;
        right += usize::from(label == head.labels()[examples[index].0]);
    }
    println!("{right} of {} held-out texts right, {} trained on", held_out.len(), kept.len());
    std::fs::write(out, head.to_bytes()?).map_err(|error| Error::from(error).context(out.display()))
}

/// The labels in the order of their first texts, and each text with its label's number.
fn examples(text: &str) -> Result<(Vec<String>, Vec<(usize, &str)>)> {
    let mut labels: Vec<String> = Vec::new();
    let mut examples = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (label, text) = line.split_once('\t').ok_or_else(|| {
            Error::format(format!("line {}: {line:?}, expected a label, a tab and a text", number + 1))
        })?;
        let class = labels.iter().position(|known| known == label).unwrap_or_else(|| {
            labels.push(label.to_owned());
            labels.len() - 1
        });
        examples.push((class, text));
    }
    Ok((labels, examples))
}
