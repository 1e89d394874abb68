//! How text is written: the sampling arguments, and the loop from tokens to text that `generate` and `chat` share.

use std::time::Instant;

use anygpu::generate::{ContextFull, GenerateOptions, Metrics, Model, Sampling, Session, SessionOptions};
use anygpu::tokenizer::Tokenizer;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::common::Interruptible;
use super::failure::Result;

/// What happens at the end of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// End with an error
    Error,
    /// Forget the older half
    Shift,
}

/// How tokens are chosen, and how many.
#[derive(clap::Args, Debug)]
pub struct WritingArgs {
    /// The most tokens to write; 0: until the model ends or the context is full
    #[arg(short = 'n', long, default_value_t = 256, value_name = "N")]
    pub max_tokens: usize,
    /// 0 always takes the likeliest token
    #[arg(short, long, default_value_t = 0.7, value_name = "X")]
    pub temperature: f32,
    /// Keep this many likeliest tokens; 0 keeps all
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub top_k: u32,
    /// Keep the likeliest tokens that reach this probability together; 1 keeps all
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    pub top_p: f32,
    /// Keep tokens at least this times as likely as the likeliest; 0 keeps all
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    pub min_p: f32,
    /// Make recent tokens less likely; 1 leaves them
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty sees, at most 256
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub repeat_last: u32,
    /// The same kernels at every position, whatever the context's length
    #[arg(long)]
    pub deterministic: bool,
    /// The same seed on the same adapter gives the same text; without it every run differs
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Positions of the context; without it what the model was made for
    #[arg(short, long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub context: usize,
    /// What to do when the context is full
    #[arg(long, value_enum, default_value_t = WhenFull::Shift, value_name = "WHAT")]
    pub context_full: WhenFull,
}

impl WritingArgs {
    /// The seed asked for, or one from the clock.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            // 53 bits pass through any JSON reader unchanged.
            now.map_or(0, |since| since.as_nanos() as u64) & ((1 << 53) - 1)
        })
    }

    /// A session of the asked size.
    pub fn session(&self, model: &Model) -> Result<Session> {
        Ok(model.session(SessionOptions {
            context_length: self.context,
            deterministic: self.deterministic,
            ..Default::default()
        })?)
    }

    /// The options; `keep` tokens stay at a shift.
    pub fn options(&self, seed: u64, stop_tokens: Vec<u32>, keep: usize) -> GenerateOptions {
        GenerateOptions {
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repeat_penalty,
                repetition_window: self.repeat_last,
                seed,
            },
            max_tokens: self.max_tokens,
            stop_tokens,
            when_full: match self.context_full {
                WhenFull::Error => ContextFull::Error,
                WhenFull::Shift => ContextFull::Shift { keep },
            },
        }
    }
}

/// The tokens that end a text.
pub fn stop_tokens(tokenizer: &Tokenizer) -> Vec<u32> {
    (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.is_end_of_generation(id)).collect()
}

/// What was written.
pub struct Written {
    /// Tokens, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// What the session did.
    pub metrics: Metrics,
    /// Seconds until the first token was there.
    pub prefill_seconds: f64,
    /// Seconds from the first token to the last.
    pub decode_seconds: f64,
    /// `stop`, `length` or `interrupted`.
    pub finish: &'static str,
}

impl Written {
    /// Tokens a second after the first.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let count = self.tokens.len().saturating_sub(1);
        (count > 0 && self.decode_seconds > 0.0).then(|| count as f64 / self.decode_seconds)
    }

    /// Prompt tokens a second.
    pub fn prefill_per_second(&self) -> Option<f64> {
        (self.prefill_seconds > 0.0).then(|| self.metrics.prefilled as f64 / self.prefill_seconds)
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({
            "text": self.text,
            "tokens": self.tokens,
            "finish": self.finish,
            "prompt_tokens": self.prompt_tokens,
            "prefilled": self.metrics.prefilled,
            "shifts": self.metrics.shifts,
            "prefill_ms": self.prefill_seconds * 1e3,
            "decode_ms": self.decode_seconds * 1e3,
            "prefill_tokens_per_second": self.prefill_per_second(),
            "tokens_per_second": self.tokens_per_second(),
        })
    }

    /// For a person.
    pub fn summary(&self) -> String {
        let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
        format!(
            "prompt {} tokens ({} computed, {} tokens/s), {} written ({} tokens/s), end: {}",
            self.prompt_tokens,
            self.metrics.prefilled,
            rate(self.prefill_per_second()),
            self.tokens.len(),
            rate(self.tokens_per_second()),
            self.finish
        )
    }
}

/// Writes text after `prompt`; `show` gets each piece as it comes. Without a tokenizer the text is the ids.
pub async fn write(
    session: &mut Session,
    tokenizer: Option<&Tokenizer>,
    prompt: &[u32],
    options: GenerateOptions,
    after_text: bool,
    mut show: impl FnMut(&str) -> Result,
) -> Result<Written> {
    let interrupt = Interruptible::new();
    let limit = options.max_tokens;
    let mut decoder = tokenizer.map(|tokenizer| match after_text {
        true => tokenizer.decoder().after_text(),
        false => tokenizer.decoder(),
    });
    let mut metrics = Metrics::default();
    let (mut tokens, mut text) = (Vec::new(), String::new());
    let (start, mut first, mut last) = (Instant::now(), None, Instant::now());
    let mut finish = "stop";
    {
        let mut stream = session.generate(prompt, options, &mut metrics);
        loop {
            if interrupt.stopped() {
                finish = "interrupted";
                break;
            }
            let Some(token) = stream.next().await else { break };
            let token = token?;
            last = Instant::now();
            first.get_or_insert(last);
            tokens.push(token);
            let piece = match &mut decoder {
                Some(decoder) => decoder.push(token)?,
                None => format!("{}{token}", if tokens.len() > 1 { " " } else { "" }),
            };
            if !piece.is_empty() {
                show(&piece)?;
                text += &piece;
            }
        }
    }
    let rest = decoder.map_or(String::new(), |decoder| decoder.finish());
    if !rest.is_empty() {
        show(&rest)?;
        text += &rest;
    }
    if finish == "stop" && limit != 0 && tokens.len() == limit {
        finish = "length";
    }
    // What was submitted ahead runs out, so that its time is nobody else's.
    session.finish().await?;
    let first = first.unwrap_or_else(Instant::now);
    Ok(Written {
        prompt_tokens: prompt.len(),
        tokens,
        text,
        metrics,
        prefill_seconds: (first - start).as_secs_f64(),
        decode_seconds: last.saturating_duration_since(first).as_secs_f64(),
        finish,
    })
}
