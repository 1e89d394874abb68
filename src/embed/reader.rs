//! [`Reader`]: what encoders share, whatever computes them: texts to tokens, and what becomes of their rows.

use super::files::{Read, Settings};
use super::{LoadOptions, Long, TextOptions};
use crate::error::{Error, Result};
use crate::models::bert::{Config, Pooling};
use crate::models::weights::TensorFile;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// How an encoder reads texts.
pub struct Reader {
    tokenizer: Option<Tokenizer>,
    /// Tokens before and behind those of a text.
    around: [Vec<u32>; 2],
    settings: Settings,
    config: Config,
    pooling: Pooling,
    normalize: bool,
    max_tokens: usize,
    batch_tokens: usize,
}

/// A text's parts.
pub(super) struct Parts {
    pub tokens: Vec<Vec<u32>>,
    pub truncated: bool,
}

impl Reader {
    /// What files and options say together, and the tensors; `most` rows are computed together.
    ///
    /// # Errors
    /// `Format` or `Tokenizer` for a tokenizer that does not fit the weights, `Shape` for options that do not fit the files,
    /// `OutOfMemory` where a text has more tokens than `most`.
    pub(super) fn new(read: Read, options: &LoadOptions, most: usize) -> Result<(Self, TensorFile)> {
        let Read { config, tensors, tokenizer, settings } = read;
        if let Some(found) = tokenizer.as_ref().map(Tokenizer::vocab_size).filter(|&size| size > config.vocab_size) {
            let rows = config.vocab_size;
            return Err(Error::format(format!(
                "tokenizer: found {found} tokens, expected at most {rows}, the embeddings"
            )));
        }
        let around = tokenizer.as_ref().map_or(Ok(Default::default()), around)?;
        let least = around.iter().map(Vec::len).sum::<usize>() + 1;
        let max_tokens =
            options.max_tokens.unwrap_or(settings.max_tokens.unwrap_or(usize::MAX).min(config.max_positions));
        if !(least..=config.max_positions).contains(&max_tokens) {
            let most = config.max_positions;
            return Err(Error::shape(format!("{max_tokens} tokens of a text: expected {least} to {most}")));
        }
        if most < max_tokens {
            return Err(Error::out_of_memory(format!(
                "a text of {max_tokens} tokens: expected at most {most}, whose numbers the device binds"
            )));
        }
        let reader = Self {
            tokenizer,
            around,
            pooling: options.pooling.or(settings.pooling).unwrap_or_default(),
            normalize: options.normalize.or(settings.normalize).unwrap_or(true),
            settings,
            config,
            max_tokens,
            batch_tokens: options.batch_tokens.clamp(max_tokens, most),
        };
        Ok((reader, tensors))
    }

    /// The model's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Numbers of a vector.
    pub fn dimensions(&self) -> usize {
        self.config.d_model
    }

    /// Tokens of the longest text that is not cut, those that start and end it among them.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The most tokens that are computed together.
    pub fn batch_tokens(&self) -> usize {
        self.batch_tokens
    }

    /// How rows become a vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Whether vectors have length 1.
    pub fn is_normalized(&self) -> bool {
        self.normalize
    }

    /// What the model's files want in front of texts, by name, such as `query` and `passage`.
    pub fn prompts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.prompts.iter().map(|(name, prompt)| (name.as_str(), prompt.as_str()))
    }

    /// The tokenizer of the files.
    ///
    /// # Errors
    /// `Tokenizer` where there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let missing =
            || Error::tokenizer("tokenizer: not found, expected tokenizer.json or GGUF's tokenizer.ggml.model");
        self.tokenizer.as_ref().ok_or_else(missing)
    }

    /// The tokens of a text as the model sees them, cut to what fits or into parts.
    pub(super) fn parts(&self, text: &str, options: &TextOptions) -> Result<Parts> {
        let joined;
        let text = if options.prefix.is_empty() {
            text
        } else {
            joined = format!("{}{text}", options.prefix);
            &joined
        };
        // As sentence-transformers, which reads special tokens that a text spells.
        let encode = EncodeOptions { add_special: false, parse_special: true };
        let tokens = self.tokenizer()?.encode(text, encode)?;
        let [before, behind] = &self.around;
        let room = self.max_tokens - before.len() - behind.len();
        let whole = tokens.len() <= room;
        let chunks: Vec<&[u32]> = match options.long {
            _ if whole => vec![&tokens],
            Long::Truncate => vec![&tokens[..room]],
            Long::Split => tokens.chunks(room).collect(),
        };
        let around = |chunk: &&[u32]| [before, *chunk, behind].concat();
        Ok(Parts { tokens: chunks.iter().map(around).collect(), truncated: !whole && options.long == Long::Truncate })
    }

    /// Tokens of a text that are given as such.
    pub(super) fn checked(&self, tokens: &[u32]) -> Result<Parts> {
        if tokens.len() > self.max_tokens {
            let (found, most) = (tokens.len(), self.max_tokens);
            return Err(Error::shape(format!("{found} tokens, expected at most {most}")));
        }
        let size = self.config.vocab_size;
        match tokens.iter().find(|&&token| token as usize >= size) {
            Some(token) => Err(Error::shape(format!("token {token}, expected one below {size}"))),
            None => Ok(Parts { tokens: vec![tokens.to_vec()], truncated: false }),
        }
    }
}

/// The tokens that a tokenizer puts before and behind those of a text.
fn around(tokenizer: &Tokenizer) -> Result<[Vec<u32>; 2]> {
    let encode = |add_special| tokenizer.encode("a", EncodeOptions { add_special, parse_special: true });
    let (bare, full) = (encode(false)?, encode(true)?);
    let at = full.windows(bare.len().max(1)).position(|window| window == bare);
    match at.filter(|_| !bare.is_empty()) {
        Some(at) => Ok([full[..at].to_vec(), full[at + bare.len()..].to_vec()]),
        None => Err(Error::tokenizer(format!("tokenizer: \"a\" is {bare:?}, expected it within {full:?}"))),
    }
}
