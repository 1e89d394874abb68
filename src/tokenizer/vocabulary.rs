//! The vocabulary of a GGUF file: texts, kinds and the tokens with a meaning of their own, checked once so that
//! nothing after it meets an index out of range.

use std::collections::{BTreeSet, HashMap};

use crate::error::{Error, Result};
use crate::format::metadata::{Metadata, Value};

/// The longest token text that is read. Published vocabularies stay below 600 bytes; deriving merges takes time in
/// the square of the length.
const MAX_TOKEN_BYTES: usize = 4096;

/// Texts of control tokens that end a turn or a text, as llama.cpp lists them.
const END_OF_GENERATION: [&str; 12] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "<eos>",
    "</s>",
];

/// What a token is for: `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    fn from_number(number: i64) -> Option<Kind> {
        Some(match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// Token texts and kinds by id, ids by text, and special ids.
#[derive(Debug)]
pub(super) struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<Kind>,
    ids: HashMap<String, u32>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    end_of_generation: BTreeSet<u32>,
}

impl Vocabulary {
    /// Reads `tokenizer.ggml.tokens`, `.token_type` and the special ids. `sentence_piece` says which defaults hold
    /// for what is missing.
    pub fn from_gguf(metadata: &Metadata, sentence_piece: bool) -> Result<Vocabulary> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let tokens = array(metadata, TOKENS, Metadata::strings)?
            .ok_or_else(|| Error::tokenizer(format!("metadata {TOKENS}: not found, expected the vocabulary")))?;
        let kinds = match array(metadata, "tokenizer.ggml.token_type", Metadata::ints)? {
            Some(numbers) => kinds(numbers, tokens.len())?,
            None => tokens
                .iter()
                .map(|token| if sentence_piece && byte_value(token).is_some() { Kind::Byte } else { Kind::Normal })
                .collect(),
        };
        let mut vocabulary = Vocabulary::new(tokens.to_vec(), kinds)?;
        for (id, kind) in vocabulary.kinds.iter().enumerate() {
            if *kind == Kind::Byte && byte_value(&vocabulary.tokens[id]).is_none() {
                let token = &vocabulary.tokens[id];
                return Err(Error::tokenizer(format!("token {id}: found {token:?} of type byte, expected <0xNN>")));
            }
        }
        let special = |name: &str, default: Option<(u32, &str)>| vocabulary.special(metadata, name, default);
        // What llama.cpp takes for SentencePiece files that name no ids.
        let default = |id, text| if sentence_piece { Some((id, text)) } else { None };
        let (bos, eos) = (special("bos", default(1, "<s>"))?, special("eos", default(2, "</s>"))?);
        let unknown = special("unknown", default(0, "<unk>"))?;
        let ends = [eos, special("eot", None)?, special("eom", None)?];
        for id in [bos].into_iter().chain(ends).flatten() {
            // Some files mark these as normal text; matching them in a prompt and hiding them in the answer needs the truth.
            vocabulary.kinds[id as usize] = Kind::Control;
        }
        (vocabulary.bos, vocabulary.eos, vocabulary.unknown) = (bos, eos, unknown);
        vocabulary.end_of_generation.extend(ends.into_iter().flatten());
        Ok(vocabulary)
    }

    /// A vocabulary without special ids; ends of generation are found by name.
    pub fn new(tokens: Vec<String>, kinds: Vec<Kind>) -> Result<Vocabulary> {
        if tokens.is_empty() || tokens.len() > i32::MAX as usize {
            return Err(Error::tokenizer(format!("vocabulary: found {} tokens, expected 1 to 2^31", tokens.len())));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.len() > MAX_TOKEN_BYTES {
                let found = token.len();
                return Err(Error::tokenizer(format!(
                    "token {id}: found {found} bytes, expected at most {MAX_TOKEN_BYTES}"
                )));
            }
            if let Some(first) = ids.insert(token.clone(), id as u32) {
                return Err(Error::tokenizer(format!(
                    "token {id}: {token:?} is also token {first}, expected each once"
                )));
            }
        }
        let end_of_generation = END_OF_GENERATION
            .iter()
            .filter_map(|text| ids.get(*text).copied())
            // The text `</s>` may be an ordinary piece of HTML to a byte-level vocabulary.
            .filter(|id| matches!(kinds[*id as usize], Kind::Control | Kind::UserDefined))
            .collect();
        Ok(Vocabulary { tokens, kinds, ids, bos: None, eos: None, unknown: None, end_of_generation })
    }

    fn special(&self, metadata: &Metadata, name: &str, default: Option<(u32, &str)>) -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match metadata.u64(&key)? {
            Some(id) if id < self.len() as u64 => Ok(Some(id as u32)),
            Some(id) => Err(Error::tokenizer(format!("metadata {key}: found {id}, expected below {}", self.len()))),
            None => Ok(default.filter(|(id, text)| self.token(*id) == Some(text)).map(|(id, _)| id)),
        }
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The kind of a token of this vocabulary; ids outside it are unused.
    pub fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation.contains(&id)
    }

    /// Ids, texts and kinds in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        self.tokens.iter().zip(&self.kinds).enumerate().map(|(id, (token, kind))| (id as u32, token.as_str(), *kind))
    }
}

/// An array of the metadata. An empty one has no element type to check, so it reads as missing.
pub(super) fn array<'a, T>(
    metadata: &'a Metadata,
    key: &str,
    get: impl Fn(&'a Metadata, &str) -> Result<Option<&'a [T]>>,
) -> Result<Option<&'a [T]>> {
    match metadata.get(key) {
        Some(Value::Array(values)) if values.is_empty() => Ok(None),
        _ => get(metadata, key),
    }
}

/// The value of a byte token `<0xNN>`.
pub(super) fn byte_value(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn kinds(numbers: &[i64], expected: usize) -> Result<Vec<Kind>> {
    if numbers.len() != expected {
        let found = numbers.len();
        return Err(Error::tokenizer(format!(
            "metadata tokenizer.ggml.token_type: found {found} types, expected {expected}, one for each token"
        )));
    }
    let kind = |(id, number): (usize, &i64)| {
        Kind::from_number(*number)
            .ok_or_else(|| Error::tokenizer(format!("token {id}: found token type {number}, expected 1 to 6")))
    };
    numbers.iter().enumerate().map(kind).collect()
}
