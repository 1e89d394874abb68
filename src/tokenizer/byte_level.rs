//! Byte-level BPE: each byte has a printable character, a pre-tokenizer cuts the text, merges come with the file.

use std::sync::OnceLock;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::vocabulary::{Kind, Vocabulary, array};
use crate::error::{Error, Result};
use crate::format::metadata::Metadata;

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// llama.cpp's choice for files that name no pre-tokenizer: each pattern cuts what those before it left.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", r"[0-9][0-9][0-9]"];

/// How text is cut before merging, by the names of `tokenizer.ggml.pre`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pre {
    Default,
    Gpt2,
    Llama3,
    Qwen2,
    SmolLm,
}

impl Pre {
    /// # Errors
    /// `Unsupported`, with the name, for a pre-tokenizer that is not here.
    pub fn from_gguf(metadata: &Metadata) -> Result<Pre> {
        Ok(match metadata.str("tokenizer.ggml.pre")? {
            None | Some("" | "default") => Pre::Default,
            Some("gpt-2" | "gpt2") => Pre::Gpt2,
            Some("llama-bpe" | "llama3" | "llama-v3") => Pre::Llama3,
            Some("qwen2") => Pre::Qwen2,
            Some("smollm") => Pre::SmolLm,
            Some(name) => {
                return Err(Error::unsupported(format!(
                    "metadata tokenizer.ggml.pre: found {name:?}, expected default, gpt-2, llama-bpe, qwen2 or smollm"
                )));
            }
        })
    }

    /// Whether llama.cpp starts every text with BOS where the file does not say.
    pub fn adds_bos(self) -> bool {
        self == Pre::Llama3
    }

    pub fn normalizer(self) -> Option<NormalizerWrapper> {
        (self == Pre::Qwen2).then(|| NFC.into())
    }

    pub fn pre_tokenizer(self) -> Result<PreTokenizerWrapper> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        let patterns: &[&str] = match self {
            Pre::Default => &DEFAULT,
            Pre::Gpt2 => &[GPT_2],
            Pre::Llama3 => &[LLAMA_3],
            Pre::Qwen2 => &[QWEN_2],
            Pre::SmolLm => {
                steps.push(Digits::new(true).into());
                &[GPT_2]
            }
        };
        for pattern in patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            steps.push(split.map_err(|error| Error::tokenizer(format!("pre-tokenizer: {error}")))?.into());
        }
        steps.push(ByteLevel::new(false, false, false).into());
        Ok(Sequence::new(steps).into())
    }
}

/// The model: the vocabulary and `tokenizer.ggml.merges`, the most frequent pair first.
pub(super) fn model(vocabulary: &Vocabulary, metadata: &Metadata, pre: Pre) -> Result<BPE> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let pairs = array(metadata, MERGES, Metadata::strings)?
        .ok_or_else(|| Error::tokenizer(format!("metadata {MERGES}: not found, expected pairs of tokens")))?;
    let mut merges = Vec::with_capacity(pairs.len());
    for (rank, pair) in pairs.iter().enumerate() {
        let known = |token: &str| {
            vocabulary.id(token).ok_or_else(|| {
                Error::tokenizer(format!("metadata {MERGES}: pair {rank} {pair:?} needs {token:?}, which is no token"))
            })
        };
        // The separator is the first space after the first character: a left part may be a space itself.
        let first = pair.chars().next().map_or(0, char::len_utf8);
        let (left, right) = pair[first..]
            .find(' ')
            .map(|at| (&pair[..first + at], &pair[first + at + 1..]))
            .filter(|(_, right)| !right.is_empty())
            .ok_or_else(|| {
                Error::tokenizer(format!("metadata {MERGES}: pair {rank} is {pair:?}, expected two tokens"))
            })?;
        let ids = [known(left)?, known(right)?, known(&format!("{left}{right}"))?];
        // Text must not be able to spell a control token, so a merge that would is left out.
        if ids.iter().all(|id| vocabulary.kind(*id) != Kind::Control) {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    let words: Vocab = vocabulary
        .iter()
        .filter(|(id, _, kind)| *kind != Kind::Control || vocabulary.unknown == Some(*id))
        .map(|(id, token, _)| (token.to_owned(), id))
        .collect();
    let mut builder = BPE::builder().vocab_and_merges(words, merges).ignore_merges(pre == Pre::Llama3);
    if let Some(token) = vocabulary.unknown.and_then(|id| vocabulary.token(id)) {
        builder = builder.unk_token(token.to_owned());
    }
    // The crate's cache is per thread and outlives the tokenizer; a session encodes too little to pay for that.
    builder.cache_capacity(0).build().map_err(|error| Error::tokenizer(format!("vocabulary: {error}")))
}

/// The character of each byte: GPT-2's `bytes_to_unicode`. Printable Latin-1 stands for itself, the rest follow U+0100.
pub(super) fn characters() -> &'static [char; 256] {
    static CHARACTERS: OnceLock<[char; 256]> = OnceLock::new();
    CHARACTERS.get_or_init(|| {
        let mut next = 0x100;
        std::array::from_fn(|byte| match byte as u8 {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or_default()
            }
        })
    })
}

/// Appends the bytes of a token's characters, or the text itself where a character stands for no byte.
pub(super) fn push_bytes(token: &str, out: &mut Vec<u8>) {
    static BYTES: OnceLock<[Option<u8>; 0x180]> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut bytes = [None; 0x180];
        for (byte, character) in characters().iter().enumerate() {
            bytes[*character as usize] = Some(byte as u8);
        }
        bytes
    });
    let start = out.len();
    for character in token.chars() {
        match bytes.get(character as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}
