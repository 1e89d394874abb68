//! `search`: an index of texts in a file, and the nearest of them.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anygpu::format::Safetensors;
use anygpu::format::safetensors::Element;
use anygpu::format::source::MappedFile;
use anygpu::gpu::Context;
use anygpu::search::{Extra, Index, Metric};
use anygpu::{DType, Error};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::common::{Global, print_json};
use super::encoder::{EncoderArgs, InputArgs, vectors};
use super::failure::{Failure, Result};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  anygpu search build -m all-MiniLM-L6-v2 notes.txt faq.txt --index notes.safetensors
  anygpu search query -m all-MiniLM-L6-v2 --index notes.safetensors \"how do I reset my password\"
  anygpu search query -m e5-small-v2 --prefix \"query: \" --index docs.safetensors -k 10 --json \"who wrote it\"
  anygpu search add -m all-MiniLM-L6-v2 --index notes.safetensors more.jsonl --jsonl --field body
  anygpu search remove --index notes.safetensors 17 42")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make an index of the lines of files
    Build(Build),
    /// Add the lines of files to an index
    Add(Add),
    /// Remove texts from an index by id
    Remove(Remove),
    /// Find the texts of an index that are nearest to each query
    Query(Query),
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum MetricArg {
    /// The cosine of the angle
    Cosine,
    /// The product
    Dot,
}

#[derive(clap::Args, Debug)]
struct IndexArgs {
    /// The index's file
    #[arg(long, value_name = "FILE")]
    index: PathBuf,
}

#[derive(clap::Args, Debug)]
struct Build {
    /// Files with a text a line; - is stdin
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    index: IndexArgs,
    /// What vectors are kept as: f32, f16, q8_0
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    index_dtype: DType,
    /// What makes a text near a query
    #[arg(long, value_enum, default_value = "cosine")]
    metric: MetricArg,
    #[command(flatten)]
    reading: InputArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
}

#[derive(clap::Args, Debug)]
struct Add {
    /// Files with a text a line; - is stdin
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    reading: InputArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
}

#[derive(clap::Args, Debug)]
struct Remove {
    /// The ids, as queries print them
    #[arg(required = true)]
    ids: Vec<u64>,
    #[command(flatten)]
    index: IndexArgs,
}

#[derive(clap::Args, Debug)]
struct Query {
    /// The queries
    #[arg(required_unless_present = "input", conflicts_with = "input")]
    queries: Vec<String>,
    /// A file with a query a line; - is stdin
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Texts to find for each query, at most 256
    #[arg(short, default_value_t = 5)]
    k: usize,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    reading: InputArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
}

/// An index with the texts of its vectors.
struct Store {
    index: Index,
    texts: BTreeMap<u64, String>,
}

impl Store {
    async fn open(context: &Context, path: &Path) -> Result<Self> {
        let named = |error: Error| Failure::from(error.context(path.display()));
        let source = Arc::new(MappedFile::open(path)?);
        let index = Index::load(context, source.clone()).await.map_err(named)?;
        let file = Safetensors::open(source).await.map_err(named)?;
        let read = async |name: &str, element: Element, size: Option<u64>| {
            let info = file.expect(name, element, &[size])?;
            Ok::<_, Error>(file.source().read(info.offset, info.bytes as usize).await?.into_owned())
        };
        let count = index.len();
        let texts = read("texts", Element::U8, None).await.map_err(named)?;
        let ends = read("text_ends", Element::U64, Some(count as u64)).await.map_err(named)?;
        let mut start = 0;
        let mut by_id = BTreeMap::new();
        for (id, end) in index.ids().zip(ends.chunks_exact(8)) {
            let end =
                usize::try_from(end.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte))).unwrap_or(usize::MAX);
            let text = texts.get(start..end).ok_or_else(|| {
                let found = texts.len();
                named(Error::format(format!(
                    "text_ends: text {id} at {start} to {end}, expected it within {found} bytes"
                )))
            })?;
            by_id.insert(id, String::from_utf8_lossy(text).into_owned());
            start = end;
        }
        Ok(Self { index, texts: by_id })
    }

    /// Writes beside the file first, so that an interrupted run leaves the old one.
    async fn save(&self, path: &Path) -> Result {
        let named = |error: std::io::Error| Failure::error(format!("{}: {error}", path.display()));
        let texts: Vec<u8> = self.texts.values().flat_map(|text| text.bytes()).collect();
        let mut end = 0u64;
        let ends: Vec<u8> = self
            .texts
            .values()
            .flat_map(|text| {
                end += text.len() as u64;
                end.to_le_bytes()
            })
            .collect();
        let count = self.texts.len() as u64;
        // Numbers of 8 bytes first, so that they lie at multiples of 8 in most files.
        let extras = [
            Extra { name: "text_ends".into(), element: Element::U64, shape: vec![count], bytes: ends },
            Extra { name: "texts".into(), element: Element::U8, shape: vec![texts.len() as u64], bytes: texts },
        ];
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let mut out = BufWriter::new(std::fs::File::create(&partial).map_err(named)?);
        let saved = self.index.save(&mut out, &extras).await;
        drop(out);
        if saved.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        saved.map_err(|error| error.context(path.display()))?;
        std::fs::rename(&partial, path).map_err(named)
    }

    async fn add(&mut self, vectors: &[f32], texts: Vec<String>) -> Result {
        let ids = self.index.add(vectors).await?;
        self.texts.extend(ids.zip(texts));
        Ok(())
    }

    fn report(&self, global: &Global, path: &Path, seconds: f64) -> Result {
        if global.json {
            return print_json(&json!({
                "index": path.display().to_string(),
                "texts": self.index.len(),
                "dimensions": self.index.dimensions(),
                "dtype": self.index.dtype().name(),
                "seconds": seconds,
            }));
        }
        let (n, d, dtype) = (self.index.len(), self.index.dimensions(), self.index.dtype());
        Ok(writeln!(std::io::stdout(), "{}: {n} texts, {dtype} [{n}, {d}]", path.display())?)
    }
}

fn read_all(reading: &InputArgs, files: &[PathBuf]) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for file in files {
        texts.extend(reading.read(file)?);
    }
    Ok(texts)
}

async fn build(global: &Global, args: &Build) -> Result {
    let texts = read_all(&args.reading, &args.files)?;
    let started = Instant::now();
    let mut embedder = args.encoder.load(global).await?;
    let metric = match args.metric {
        MetricArg::Cosine => Metric::Cosine,
        MetricArg::Dot => Metric::Dot,
    };
    let index = Index::new(embedder.context(), embedder.dimensions(), args.index_dtype, metric)?;
    let mut store = Store { index, texts: BTreeMap::new() };
    let options = args.encoder.text_options(&embedder)?;
    let (values, _) = vectors(&mut embedder, &texts, &options).await?;
    store.add(&values, texts).await?;
    store.save(&args.index.index).await?;
    store.report(global, &args.index.index, started.elapsed().as_secs_f64())
}

async fn add(global: &Global, args: &Add) -> Result {
    let texts = read_all(&args.reading, &args.files)?;
    let started = Instant::now();
    let mut embedder = args.encoder.load(global).await?;
    let mut store = Store::open(embedder.context(), &args.index.index).await?;
    same_dimensions(&store, embedder.dimensions(), &args.index.index)?;
    let options = args.encoder.text_options(&embedder)?;
    let (values, _) = vectors(&mut embedder, &texts, &options).await?;
    store.add(&values, texts).await?;
    store.save(&args.index.index).await?;
    store.report(global, &args.index.index, started.elapsed().as_secs_f64())
}

async fn remove(global: &Global, args: &Remove) -> Result {
    let started = Instant::now();
    let mut store = Store::open(&global.open().await?, &args.index.index).await?;
    if let Some(id) = args.ids.iter().find(|id| !store.index.contains(**id)) {
        return Err(Failure::error(format!("id {id}: not found in {}", args.index.index.display())));
    }
    store.index.remove(&args.ids);
    args.ids.iter().for_each(|id| {
        store.texts.remove(id);
    });
    store.save(&args.index.index).await?;
    store.report(global, &args.index.index, started.elapsed().as_secs_f64())
}

fn same_dimensions(store: &Store, found: usize, path: &Path) -> Result {
    let expected = store.index.dimensions();
    if found == expected {
        return Ok(());
    }
    Err(Failure::error(format!("{}: the model's vectors have {found} numbers, expected {expected}", path.display())))
}

async fn query(global: &Global, args: &Query) -> Result {
    let queries = match &args.input {
        Some(path) => args.reading.read(path)?,
        None => args.queries.clone(),
    };
    let mut embedder = args.encoder.load(global).await?;
    let mut store = Store::open(embedder.context(), &args.index.index).await?;
    same_dimensions(&store, embedder.dimensions(), &args.index.index)?;
    let options = args.encoder.text_options(&embedder)?;
    let (values, _) = vectors(&mut embedder, &queries, &options).await?;
    let started = Instant::now();
    let hits = store.index.search(&values, args.k).await?;
    let seconds = started.elapsed().as_secs_f64();
    let text = |id: u64| store.texts.get(&id).map_or("", String::as_str);
    if global.json {
        let of_query = |(query, hits): (&String, &Vec<anygpu::search::Hit>)| {
            let hits: Vec<_> =
                hits.iter().map(|hit| json!({ "id": hit.id, "score": hit.score, "text": text(hit.id) })).collect();
            json!({ "query": query, "hits": hits })
        };
        let results: Vec<_> = queries.iter().zip(&hits).map(of_query).collect();
        return print_json(&json!({ "results": results, "search_ms": seconds * 1e3 }));
    }
    let mut out = std::io::stdout().lock();
    for (number, (query, hits)) in queries.iter().zip(&hits).enumerate() {
        if queries.len() > 1 {
            writeln!(out, "{}{query}", if number > 0 { "\n" } else { "" })?;
        }
        for hit in hits {
            writeln!(out, "{:.4}  {:>6}  {}", hit.score, hit.id, text(hit.id))?;
        }
    }
    Ok(())
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    match &args.command {
        Command::Build(args) => build(global, args).await,
        Command::Add(args) => add(global, args).await,
        Command::Remove(args) => remove(global, args).await,
        Command::Query(args) => query(global, args).await,
    }
}
