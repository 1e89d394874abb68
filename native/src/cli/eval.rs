//! `eval`: perplexity of a text, and logits for comparison with other programs.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anygpu::generate::{Session, SessionOptions};
use anygpu::tokenizer::EncodeOptions;
use serde_json::json;

use super::common::{Global, Interruptible, ModelArgs, count_bar, print_json};
use super::failure::{Failure, Result};
use super::npy;

#[derive(clap::Args, Debug)]
#[command(after_help = "The text is cut into windows, each computed on its own behind the token that starts a text;
the figure is exp of the mean of -ln p over all tokens that have one before them in their window.

Examples:
  anygpu eval held-out.txt
  anygpu eval -m model.gguf wiki.test.raw --context 2048 --json
  anygpu eval -m model.gguf --tokens 1,5,9 --logits out.npy")]
pub struct Args {
    /// The text
    #[arg(required_unless_present = "tokens")]
    file: Option<PathBuf>,
    /// Token ids in place of a text
    #[arg(long, value_delimiter = ',', value_name = "IDS", conflicts_with = "file")]
    tokens: Option<Vec<u32>>,
    /// Write the logits of every position, f32 [tokens, vocabulary], in place of a perplexity
    #[arg(long, value_name = "OUT.npy")]
    logits: Option<PathBuf>,
    /// Tokens of a window; without it 512, or what the model was made for if that is less
    #[arg(short, long, value_name = "N")]
    context: Option<usize>,
    /// Tokens from one window's start to the next one's; without it windows do not overlap, and with less each window
    /// counts only what no earlier one did
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// At most this many windows
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Compute everything plainly in f32: the path that others are checked against
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Rows of logits that the host holds at a time.
const ROWS: usize = 128;

/// `-ln p` of `token` under `logits`.
fn surprise(logits: &[f32], token: u32) -> Option<f64> {
    let wanted = f64::from(*logits.get(token as usize)?);
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    Some(sum.ln() + largest - wanted)
}

/// Mean, its standard error and the number of values.
#[derive(Default)]
struct Mean {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    fn error(&self) -> f64 {
        let n = self.count as f64;
        ((self.squares / n - self.mean().powi(2)).max(0.0) / (n - 1.0).max(1.0)).sqrt()
    }
}

/// Where windows start, and the first token of each that no earlier one has counted.
fn windows(tokens: usize, length: usize, stride: usize) -> Vec<(usize, usize)> {
    let mut starts = Vec::new();
    let (mut start, mut counted) = (0, 0);
    while counted < tokens {
        starts.push((start, counted));
        counted = (start + length).min(tokens);
        start += stride;
    }
    starts
}

async fn logits(session: &mut Session, tokens: &[u32], path: &std::path::Path) -> Result<usize> {
    let named = |error: std::io::Error| Failure::error(format!("{}: {error}", path.display()));
    let vocabulary = session.model().config().vocab_size;
    let mut out = BufWriter::new(std::fs::File::create(path).map_err(named)?);
    out.write_all(&npy::header(tokens.len(), vocabulary)).map_err(named)?;
    let interrupt = Interruptible::new();
    for chunk in tokens.chunks(ROWS) {
        if interrupt.stopped() {
            return Err(Failure::Interrupted);
        }
        let values = session.forward_all(0, chunk).await?;
        npy::write(&mut out, &values).map_err(named)?;
    }
    out.flush().map_err(named)?;
    Ok(vocabulary)
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    if args.context.is_some_and(|length| length < 2) || args.stride == Some(0) {
        return Err(Failure::Usage("--context: expected 2 or more; --stride: expected 1 or more".into()));
    }
    let text = match &args.file {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        None => None,
    };
    let model = args.model.load(global).await?;
    let tokens = match (&text, &args.tokens) {
        (Some(text), _) => model.tokenizer()?.encode(text, EncodeOptions::default())?,
        (None, tokens) => tokens.clone().unwrap_or_default(),
    };
    if let Some(path) = &args.logits {
        let length = tokens.len();
        let mut session =
            model.session(SessionOptions { context_length: length.max(1), plain: args.plain, ..Default::default() })?;
        let vocabulary = logits(&mut session, &tokens, path).await?;
        if global.json {
            return print_json(&json!({ "logits": path.display().to_string(), "shape": [length, vocabulary] }));
        }
        writeln!(std::io::stdout(), "{}: f32 [{length}, {vocabulary}]", path.display())?;
        return Ok(());
    }
    let bos = model.tokenizer().ok().filter(|tokenizer| tokenizer.adds_bos()).and_then(|tokenizer| tokenizer.bos());
    let context = args.context.unwrap_or(512.min(model.config().context_length));
    // With a start token every other one is predicted; without, a window's first is not.
    let length = context - usize::from(bos.is_some());
    let stride = args.stride.unwrap_or(length).min(length);
    let mut windows = windows(tokens.len(), length, stride);
    windows.truncate(args.windows.unwrap_or(usize::MAX));
    let mut session =
        model.session(SessionOptions { context_length: context, plain: args.plain, ..Default::default() })?;
    let vocabulary = model.config().vocab_size;
    let bar = count_bar(windows.len(), "evaluating");
    let interrupt = Interruptible::new();
    let mut mean = Mean::default();
    let started = std::time::Instant::now();
    for &(start, counted) in &windows {
        let end = (start + length).min(tokens.len());
        let window: Vec<u32> = bos.into_iter().chain(tokens[start..end].iter().copied()).collect();
        // The token at `i` of the window is number `first + i` of the text.
        let first = start as isize - isize::from(bos.is_some());
        session.clear(0);
        let mut position = 0;
        for chunk in window.chunks(ROWS) {
            if interrupt.stopped() {
                bar.finish_and_clear();
                return Err(Failure::Interrupted);
            }
            let values = session.forward_all(0, chunk).await?;
            for row in values.chunks_exact(vocabulary) {
                position += 1;
                let Some(&next) = window.get(position) else { break };
                if first + position as isize >= counted as isize {
                    let surprise = surprise(row, next).filter(|nll| nll.is_finite());
                    mean.add(surprise.ok_or_else(|| {
                        Failure::error(format!("logits of token {}: not finite", first + position as isize))
                    })?);
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if mean.count == 0 {
        return Err(Failure::error(format!("text: found {} tokens, expected at least 2", tokens.len())));
    }
    let (nll, error) = (mean.mean(), mean.error());
    let perplexity = nll.exp();
    let per_second = windows.len() as f64 * length as f64 / started.elapsed().as_secs_f64();
    // A token's mean says little where tokenizers differ; bytes are the same everywhere.
    let whole = windows.last().is_some_and(|&(start, _)| start + length >= tokens.len());
    let per_byte = text.as_ref().filter(|_| whole).map(|text| mean.sum / std::f64::consts::LN_2 / text.len() as f64);
    if global.json {
        return print_json(&json!({
            "model": model.name(),
            "dtype": model.dtype().name(),
            "adapter": model.context().profile().name,
            "context": context,
            "stride": stride,
            "windows": windows.len(),
            "tokens": mean.count,
            "nll": nll,
            "nll_error": error,
            "perplexity": perplexity,
            "perplexity_error": perplexity * error,
            "bits_per_byte": per_byte,
            "tokens_per_second": per_second,
        }));
    }
    let mut out = std::io::stdout();
    writeln!(out, "tokens      {} in {} windows of {context}", mean.count, windows.len())?;
    writeln!(out, "nll         {nll:.5} ± {error:.5}")?;
    writeln!(out, "perplexity  {perplexity:.4} ± {:.4}", perplexity * error)?;
    if let Some(bits) = per_byte {
        writeln!(out, "bits/byte   {bits:.4}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_counted_once() {
        for (tokens, length, stride) in [(10, 4, 4), (10, 4, 2), (3, 8, 8), (8, 4, 3), (1, 1, 1)] {
            let mut seen = vec![0; tokens];
            for (start, counted) in windows(tokens, length, stride) {
                assert!(counted >= start, "{tokens} {length} {stride}: tokens between windows");
                (counted..(start + length).min(tokens)).for_each(|i| seen[i] += 1);
            }
            assert!(seen.iter().all(|&n| n == 1), "{tokens} {length} {stride}: {seen:?}");
        }
        assert!(windows(0, 4, 4).is_empty());
    }

    #[test]
    fn surprise_is_minus_the_logarithm_of_the_probability() {
        let logits = [1000.0, 1000.0, f32::NEG_INFINITY];
        assert!((surprise(&logits, 0).unwrap() - 2f64.ln()).abs() < 1e-12);
        assert_eq!(surprise(&logits, 2), Some(f64::INFINITY));
        assert_eq!(surprise(&logits, 3), None);
    }

    #[test]
    fn the_error_of_a_mean() {
        let mut mean = Mean::default();
        [1.0, 2.0, 3.0, 4.0].into_iter().for_each(|v| mean.add(v));
        assert_eq!(mean.mean(), 2.5);
        // Variance 1.25 over n - 1 = 3.
        assert!((mean.error() - (1.25f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
