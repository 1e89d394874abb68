//! `classify`: texts to labels, by a trained head on an encoder.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anygpu::embed::Head;
use anygpu::format::source::MappedFile;
use serde_json::{Value, json};

use super::common::{Global, print_json};
use super::encoder::{EncoderArgs, InputArgs, vectors};
use super::failure::{Failure, Result};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "A line of output is a text's likeliest label and its probability. A head is a safetensors file:
`weight` [labels, dimensions], `bias` [labels], and `labels`, a JSON array, in its metadata.

Examples:
  anygpu classify -m all-MiniLM-L6-v2 --head feedback.safetensors \"It crashes when I press save.\"
  anygpu classify -m all-MiniLM-L6-v2 --head feedback.safetensors --input lines.txt --json | jq '.texts[0]'"
)]
pub struct Args {
    /// The texts
    #[arg(required_unless_present = "input", conflicts_with = "input")]
    texts: Vec<String>,
    /// A file with a text a line; - is stdin
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    reading: InputArgs,
    /// The head: made for vectors of this model
    #[arg(long, value_name = "FILE")]
    head: PathBuf,
    #[command(flatten)]
    encoder: EncoderArgs,
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    // A head that cannot be read is said before a model is loaded.
    let head = Head::open(Arc::new(MappedFile::open(&args.head)?)).await;
    let head = head.map_err(|error| Failure::from(error.context(args.head.display())))?;
    let texts = match &args.input {
        Some(path) => args.reading.read(path)?,
        None => args.texts.clone(),
    };
    let mut embedder = args.encoder.load(global).await?;
    let d = embedder.dimensions();
    if head.dimensions() != d {
        let found = head.dimensions();
        return Err(Failure::error(format!(
            "{}: a head of vectors of {found}, expected {d}, the model's",
            args.head.display()
        )));
    }
    let options = args.encoder.text_options(&embedder)?;
    let (values, _) = vectors(&mut embedder, &texts, &options).await?;
    if global.json {
        let mut rows = Vec::with_capacity(texts.len());
        for vector in values.chunks_exact(d) {
            let probabilities = head.probabilities(vector)?;
            let by_label: serde_json::Map<String, Value> =
                head.labels().iter().cloned().zip(probabilities.into_iter().map(Value::from)).collect();
            rows.push(json!({ "label": head.classify(vector)?.0, "probabilities": by_label }));
        }
        return print_json(&json!({
            "model": args.encoder.model.display().to_string(),
            "head": args.head.display().to_string(),
            "adapter": embedder.context().profile().name,
            "texts": rows,
        }));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for vector in values.chunks_exact(d) {
        let (label, probability) = head.classify(vector)?;
        writeln!(out, "{label}\t{probability:.3}")?;
    }
    Ok(out.flush()?)
}
