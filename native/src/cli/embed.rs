//! `embed`: texts to vectors.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anygpu::format::safetensors::{Element, header};
use serde_json::json;

use super::common::{Global, note, print_json};
use super::encoder::{EncoderArgs, InputArgs, vectors};
use super::failure::{Failure, Result};
use super::npy;

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without --output a text's vector is one line, a JSON array. The ending of OUT decides its format.

Examples:
  anygpu embed -m all-MiniLM-L6-v2 \"a cat sits on the mat\"
  anygpu embed -m all-MiniLM-L6-v2 --input lines.txt --output vectors.npy
  anygpu embed -m e5-small-v2 --prefix \"passage: \" --input docs.jsonl --jsonl --field body --output docs.safetensors
  cat lines.txt | anygpu embed -m bge-small.gguf --dtype q8_0 --input - --json | jq '.vectors[0]'"
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
    /// Write to OUT.json, OUT.npy or OUT.safetensors in place of stdout
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    encoder: EncoderArgs,
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Npy,
    Safetensors,
}

fn format(path: &Path) -> Result<Format> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Ok(Format::Json),
        Some("npy") => Ok(Format::Npy),
        Some("safetensors") => Ok(Format::Safetensors),
        _ => Err(Failure::Usage(format!(
            "--output {}: expected a name that ends in .json, .npy or .safetensors",
            path.display()
        ))),
    }
}

fn write(out: &mut impl Write, format: Format, values: &[f32], d: usize) -> std::io::Result<()> {
    let rows = values.len() / d;
    match format {
        Format::Json => serde_json::to_writer(&mut *out, &values.chunks_exact(d).collect::<Vec<_>>())?,
        Format::Npy => {
            out.write_all(&npy::header(rows, d))?;
            npy::write(out, values)?;
        }
        Format::Safetensors => {
            let tensors = [("vectors", Element::F32, vec![rows as u64, d as u64])];
            out.write_all(&header(&tensors, &BTreeMap::new()).map_err(std::io::Error::other)?)?;
            npy::write(out, values)?;
        }
    }
    out.flush()
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    let output = args.output.as_deref().map(|path| Ok::<_, Failure>((path, format(path)?))).transpose()?;
    let texts = match &args.input {
        Some(path) => args.reading.read(path)?,
        None => args.texts.clone(),
    };
    let mut embedder = args.encoder.load(global).await?;
    let options = args.encoder.text_options(&embedder)?;
    let started = Instant::now();
    let (values, truncated) = vectors(&mut embedder, &texts, &options).await?;
    let seconds = started.elapsed().as_secs_f64();
    let d = embedder.dimensions();
    if truncated > 0 {
        let most = embedder.max_tokens();
        note(format!(
            "{truncated} of {} texts have more than {most} tokens and were cut; --split reads them whole",
            texts.len()
        ));
    }
    if let Some((path, format)) = output {
        let named = |error: std::io::Error| Failure::error(format!("{}: {error}", path.display()));
        let mut out = BufWriter::new(std::fs::File::create(path).map_err(named)?);
        write(&mut out, format, &values, d).map_err(named)?;
    }
    if global.json {
        let mut result = json!({
            "model": args.encoder.model.display().to_string(),
            "adapter": embedder.context().profile().name,
            "texts": texts.len(),
            "dimensions": d,
            "truncated": truncated,
            "texts_per_second": texts.len() as f64 / seconds,
        });
        match &args.output {
            Some(path) => result["output"] = json!(path.display().to_string()),
            None => result["vectors"] = json!(values.chunks_exact(d).collect::<Vec<_>>()),
        }
        return print_json(&result);
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    match &args.output {
        Some(path) => writeln!(out, "{}: f32 [{}, {d}]", path.display(), texts.len())?,
        None => {
            for vector in values.chunks_exact(d) {
                serde_json::to_writer(&mut out, vector)?;
                writeln!(out)?;
            }
        }
    }
    Ok(out.flush()?)
}
