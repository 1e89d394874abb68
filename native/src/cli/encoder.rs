//! What `embed` and `search` share: an encoder, texts to read, and vectors with a progress bar.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anygpu::DType;
use anygpu::embed::{Embedder, LoadOptions, Long, ModelFiles, TextOptions};
use anygpu::models::bert::Pooling;
use clap::ValueEnum;

use super::common::{Global, Interruptible, bytes_bar, count_bar};
use super::failure::{Failure, Result};

/// How rows become a vector.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum PoolingArg {
    /// Their mean
    Mean,
    /// The first one, that of [CLS]
    Cls,
    /// The last one
    Last,
}

/// An encoder and how it reads texts.
#[derive(clap::Args, Debug)]
pub struct EncoderArgs {
    /// The model: a folder with model.safetensors, config.json and tokenizer.json, or a GGUF file (bert)
    #[arg(short, long, value_name = "PATH")]
    pub model: PathBuf,
    /// What matrices become at load: f32, f16, q8_0; without it they stay as the file has them
    #[arg(long, value_name = "TYPE")]
    dtype: Option<DType>,
    /// How a text's rows become its vector; without it as the model's files say
    #[arg(long, value_enum, value_name = "HOW")]
    pooling: Option<PoolingArg>,
    /// Leave the vectors' lengths as they are
    #[arg(long)]
    no_normalize: bool,
    /// Tokens that are read of a text; without it as the model's files say
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Cut longer texts into parts, and take the mean of their vectors, instead of reading the beginning
    #[arg(long)]
    split: bool,
    /// What goes in front of every text, such as "query: " or "passage: " for E5
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt")]
    prefix: Option<String>,
    /// The same by a name that the model's files know, such as query
    #[arg(long, value_name = "NAME")]
    prompt: Option<String>,
    /// The most tokens computed together
    #[arg(long, value_name = "N", default_value_t = LoadOptions::default().batch_tokens)]
    batch_tokens: usize,
    /// Compute everything plainly in f32: the path that others are checked against
    #[arg(long)]
    plain: bool,
}

impl EncoderArgs {
    /// Opens a device and loads the encoder onto it.
    pub async fn load(&self, global: &Global) -> Result<Embedder> {
        let files = ModelFiles::open(&self.model)?;
        let options = LoadOptions {
            dtype: self.dtype,
            pooling: self.pooling.map(|pooling| match pooling {
                PoolingArg::Mean => Pooling::Mean,
                PoolingArg::Cls => Pooling::Cls,
                PoolingArg::Last => Pooling::LastToken,
            }),
            normalize: self.no_normalize.then_some(false),
            max_tokens: self.max_tokens,
            batch_tokens: self.batch_tokens,
            plain: self.plain,
        };
        let context = global.open().await?;
        let bar = bytes_bar(files.weights.len(), "loading");
        let report = bar.clone();
        let embedder = Embedder::load(&context, files, &options, move |progress| {
            report.set_length(progress.total_bytes);
            report.set_position(progress.loaded_bytes);
        })
        .await;
        bar.finish_and_clear();
        embedder.map_err(|error| error.context(self.model.display()).into())
    }

    /// How texts are read.
    pub fn text_options(&self, embedder: &Embedder) -> Result<TextOptions> {
        let prefix = match (&self.prefix, &self.prompt) {
            (Some(prefix), _) => prefix.clone(),
            (None, None) => String::new(),
            (None, Some(name)) => {
                let found = embedder.prompts().find(|(known, _)| known == name).map(|(_, prompt)| prompt.to_owned());
                found.ok_or_else(|| {
                    let known: Vec<_> = embedder.prompts().map(|(name, _)| name).collect();
                    let known = if known.is_empty() { "the model's files name none".into() } else { known.join(", ") };
                    Failure::error(format!("prompt {name:?}: not found, expected one of: {known}"))
                })?
            }
        };
        Ok(TextOptions { prefix, long: if self.split { Long::Split } else { Long::Truncate } })
    }
}

/// Where texts are read from.
#[derive(clap::Args, Debug)]
pub struct InputArgs {
    /// Read JSON objects, one a line, in place of a text a line
    #[arg(long)]
    pub jsonl: bool,
    /// The key of a JSON object that holds the text
    #[arg(long, value_name = "KEY", default_value = "text")]
    pub field: String,
}

impl InputArgs {
    /// The texts of a file, or of stdin where the path is `-`; empty lines are left out.
    pub fn read(&self, path: &Path) -> Result<Vec<String>> {
        let named = |error: std::io::Error| Failure::error(format!("{}: {error}", path.display()));
        let input: Box<dyn Read> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(path).map_err(named)?)
        };
        let mut texts = Vec::new();
        for (number, line) in BufReader::new(input).split(b'\n').enumerate() {
            let line = line.map_err(named)?;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() {
                continue;
            }
            texts.push(if self.jsonl {
                self.text_of(line)
                    .map_err(|what| Failure::error(format!("{}:{}: {what}", path.display(), number + 1)))?
            } else {
                line.to_owned()
            });
        }
        Ok(texts)
    }

    fn text_of(&self, line: &str) -> std::result::Result<String, String> {
        let value: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match value.get(&self.field) {
            Some(serde_json::Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(format!("{:?}: found {other}, expected a string", self.field)),
            None => Err(format!("{:?}: not found, expected a string", self.field)),
        }
    }
}

/// The vectors of texts, one behind the other, and how many texts were cut.
pub async fn vectors(embedder: &mut Embedder, texts: &[String], options: &TextOptions) -> Result<(Vec<f32>, usize)> {
    let d = embedder.dimensions();
    let mut out = vec![0.0; texts.len() * d];
    let mut truncated = 0;
    let bar = count_bar(texts.len(), "embedding");
    let interrupt = Interruptible::new();
    let mut stream = embedder.stream(texts, options);
    while let Some(embedded) = stream.next().await {
        if interrupt.stopped() {
            bar.finish_and_clear();
            return Err(Failure::Interrupted);
        }
        let embedded = embedded?;
        out[embedded.index * d..][..d].copy_from_slice(&embedded.vector);
        truncated += usize::from(embedded.truncated);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((out, truncated))
}
