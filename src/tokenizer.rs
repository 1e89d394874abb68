//! Text to token ids and back, as the model's own tokenizer does it.
//!
//! A GGUF file carries one of three kinds, named by `tokenizer.ggml.model`: `llama` (SentencePiece BPE with byte fallback,
//! for Llama 2, Mistral and TinyLlama), `gpt2` (byte-level BPE behind a pre-tokenizer, for Llama 3, SmolLM and Qwen 2) and
//! `bert` (WordPiece, for encoders). All run on the `tokenizers` crate and give the ids of Hugging Face's tokenizers; which tokens match in the middle of a
//! text follows the file's token types, as in llama.cpp.

mod byte_level;
mod decoder;
mod json;
mod sentencepiece;
mod vocabulary;
mod wordpiece;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use decoder::Decoder;

use tokenizers::models::bpe::BPE;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::{
    AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizer,
    PreTokenizerWrapper,
};

use crate::error::{Error, Result};
use crate::format::metadata::Metadata;
use vocabulary::{Kind, Vocabulary};

/// How [`Tokenizer::encode`] treats special tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Puts the tokens that start and end a text around it, as far as the model wants them.
    pub add_special: bool,
    /// Reads control tokens spelled in the text, such as `<|im_end|>`, as those tokens. Without it they are plain
    /// text: leave it off for text that comes from a user.
    pub parse_special: bool,
}

/// A vocabulary with its rules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    vocabulary: Vocabulary,
    pieces: Pieces,
    encoder: Encoder,
    add_bos: bool,
    add_eos: bool,
}

/// How a token's text turns into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pieces {
    /// Marks for spaces, `<0xNN>` for bytes.
    SentencePiece { add_space_prefix: bool },
    /// A character for each byte.
    ByteLevel,
    /// Not token by token: a decoder sees all of them.
    Whole,
}

#[derive(Debug)]
enum Encoder {
    Bpe(Box<BpeEncoder>),
    /// Control tokens in a text left alone, and parsed.
    Json {
        plain: Box<tokenizers::Tokenizer>,
        parsing: Box<tokenizers::Tokenizer>,
    },
}

#[derive(Debug)]
struct BpeEncoder {
    model: BPE,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Matched in every text.
    user_defined: AddedVocabulary,
    /// Matched where control tokens are parsed as well.
    special: AddedVocabulary,
    /// Whether every character has a token, or one that stands for the unknown. The crate drops those that have none.
    is_total: bool,
}

impl Tokenizer {
    /// The tokenizer that a GGUF file's metadata describes.
    ///
    /// # Errors
    /// `Tokenizer` where there is none or it contradicts itself; `Unsupported`, by name, for a kind or a pre-tokenizer
    /// that is not here; `Format` where a key has the wrong type.
    ///
    /// ```
    /// use anygpu::format::metadata::{Metadata, Value};
    /// use anygpu::tokenizer::{EncodeOptions, Tokenizer};
    /// let strings = |texts: &[&str]| Value::Strings(texts.iter().map(|text| text.to_string()).collect());
    /// let metadata = Metadata::from_iter([
    ///     ("tokenizer.ggml.model", Value::String("gpt2".into())),
    ///     ("tokenizer.ggml.pre", Value::String("llama-bpe".into())),
    ///     ("tokenizer.ggml.tokens", strings(&["h", "i", "hi", "!", "<|eot_id|>"])),
    ///     ("tokenizer.ggml.merges", strings(&["h i"])),
    ///     ("tokenizer.ggml.token_type", Value::Ints(vec![1, 1, 1, 1, 3])),
    ///     ("tokenizer.ggml.eos_token_id", Value::Uint(4)),
    /// ]);
    /// let tokenizer = Tokenizer::from_gguf(&metadata)?;
    /// let options = EncodeOptions { add_special: false, parse_special: true };
    /// assert_eq!(tokenizer.encode("hi!<|eot_id|>", options)?, [2, 3, 4]);
    /// assert_eq!(tokenizer.decode(&[2, 3, 4], true)?, "hi!");
    /// assert!(tokenizer.is_end_of_generation(4));
    /// # Ok::<(), anygpu::Error>(())
    /// ```
    pub fn from_gguf(metadata: &Metadata) -> Result<Tokenizer> {
        const MODEL: &str = "tokenizer.ggml.model";
        let sentence_piece = match metadata.str(MODEL)? {
            Some("llama") => true,
            Some("gpt2") => false,
            Some("bert") => return Ok(Tokenizer { inner: Arc::new(wordpiece::read(metadata)?) }),
            None => {
                return Err(Error::tokenizer(format!(
                    "metadata {MODEL}: not found, expected llama, gpt2 or bert; the model still runs on token ids"
                )));
            }
            Some(name @ ("none" | "no_vocab")) => {
                return Err(Error::tokenizer(format!(
                    "metadata {MODEL}: found {name:?}, the file has no vocabulary; the model still runs on token ids"
                )));
            }
            Some(name) => {
                return Err(Error::unsupported(format!(
                    "metadata {MODEL}: found {name:?}, expected llama, gpt2 or bert"
                )));
            }
        };
        let vocabulary = Vocabulary::from_gguf(metadata, sentence_piece)?;
        let flag = |name: &str, default: bool| -> Result<bool> {
            Ok(metadata.bool(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default))
        };
        let (model, normalizer, pre_tokenizer, pieces, adds_bos);
        if sentence_piece {
            let add_space_prefix = flag("add_space_prefix", true)?;
            model = sentencepiece::model(&vocabulary, metadata)?;
            normalizer = Some(sentencepiece::normalizer(add_space_prefix)?);
            pre_tokenizer = None;
            pieces = Pieces::SentencePiece { add_space_prefix };
            adds_bos = true;
        } else {
            let pre = byte_level::Pre::from_gguf(metadata)?;
            model = byte_level::model(&vocabulary, metadata, pre)?;
            normalizer = pre.normalizer();
            pre_tokenizer = Some(pre.pre_tokenizer()?);
            pieces = Pieces::ByteLevel;
            adds_bos = pre.adds_bos();
        }
        let (add_bos, add_eos) = (flag("add_bos_token", adds_bos)?, flag("add_eos_token", false)?);
        let encoder = BpeEncoder::new(&vocabulary, model, normalizer, pre_tokenizer, pieces)?;
        let encoder = Encoder::Bpe(Box::new(encoder));
        Ok(Tokenizer { inner: Arc::new(Inner { vocabulary, pieces, encoder, add_bos, add_eos }) })
    }

    /// The tokenizer of a `tokenizer.json`. Such a file does not say which tokens start and end a text: its own
    /// post-processor adds them, and [`bos`](Self::bos) and [`eos`](Self::eos) are none.
    ///
    /// # Errors
    /// `Tokenizer` for a file that does not read.
    ///
    /// ```
    /// use anygpu::tokenizer::{EncodeOptions, Tokenizer};
    /// let json = br#"{ "model": { "type": "WordLevel", "vocab": { "[UNK]": 0, "hello": 1 }, "unk_token": "[UNK]" },
    ///     "pre_tokenizer": { "type": "Whitespace" }, "added_tokens": [], "version": "1.0" }"#;
    /// let tokenizer = Tokenizer::from_json(json)?;
    /// assert_eq!(tokenizer.encode("hello there", EncodeOptions::default())?, [1, 0]);
    /// # Ok::<(), anygpu::Error>(())
    /// ```
    pub fn from_json(bytes: &[u8]) -> Result<Tokenizer> {
        Ok(Tokenizer { inner: Arc::new(json::read(bytes)?) })
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// `Tokenizer` where a character has no token and the vocabulary names none for the unknown.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let Inner { vocabulary, encoder, add_bos, add_eos, .. } = &*self.inner;
        let encoder = match encoder {
            Encoder::Bpe(encoder) => encoder,
            Encoder::Json { plain, parsing } => {
                let tokenizer = if options.parse_special { parsing } else { plain };
                let encoding = tokenizer.encode_fast(text, options.add_special).map_err(failed)?;
                return Ok(encoding.get_ids().to_vec());
            }
        };
        let mut ids = Vec::new();
        if options.add_special && *add_bos {
            ids.extend(vocabulary.bos);
        }
        encoder.encode(text, options.parse_special, &mut ids)?;
        if options.add_special && *add_eos {
            ids.extend(vocabulary.eos);
        }
        Ok(ids)
    }

    /// The text of ids. Bytes that are no UTF-8 become U+FFFD as in [`String::from_utf8_lossy`]. SentencePiece puts a
    /// space in front of every text; that one is taken away again.
    ///
    /// # Errors
    /// `Tokenizer` for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if !self.inner.is_made_of_bytes() {
            ids.iter().try_for_each(|id| self.inner.check(*id))?;
            return self.inner.decode_whole(ids, skip_special);
        }
        let mut bytes = Vec::new();
        for id in ids {
            self.inner.push_piece(*id, skip_special, &mut bytes)?;
        }
        let text = if self.inner.strips_space() { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Decodes one token at a time; leaves control tokens out unless told otherwise.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self)
    }

    /// Number of token ids.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocabulary.len()
    }

    /// The token that starts a text.
    pub fn bos(&self) -> Option<u32> {
        self.inner.vocabulary.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.inner.vocabulary.eos
    }

    /// Whether [`EncodeOptions::add_special`] puts [`bos`](Self::bos) in front.
    pub fn adds_bos(&self) -> bool {
        self.inner.add_bos && self.bos().is_some()
    }

    /// Whether a model that writes this token is done: the end of the text, of a turn or of a message by the file's
    /// ids, or a special token known by name, such as `<|eot_id|>`, `<|im_end|>`, `<end_of_turn>` or `<|endoftext|>`.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.inner.vocabulary.is_end_of_generation(id)
    }

    /// A token's text as the vocabulary spells it; `None` outside the vocabulary.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.inner.vocabulary.token(id)
    }

    /// The id of a token that the vocabulary spells so.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.vocabulary.id(token)
    }
}

impl Inner {
    fn is_made_of_bytes(&self) -> bool {
        self.pieces != Pieces::Whole
    }

    fn strips_space(&self) -> bool {
        self.pieces == Pieces::SentencePiece { add_space_prefix: true }
    }

    fn check(&self, id: u32) -> Result<()> {
        if self.vocabulary.token(id).is_some() {
            return Ok(());
        }
        let size = self.vocabulary.len();
        Err(Error::tokenizer(format!("token id: found {id}, expected below the vocabulary's {size}")))
    }

    /// Appends the bytes of a token.
    fn push_piece(&self, id: u32, skip_special: bool, out: &mut Vec<u8>) -> Result<()> {
        self.check(id)?;
        let text = self.vocabulary.token(id).unwrap_or_default();
        let kind = self.vocabulary.kind(id);
        if skip_special && matches!(kind, Kind::Control | Kind::Unknown) {
            return Ok(());
        }
        match (self.pieces, kind) {
            (Pieces::SentencePiece { .. }, Kind::Byte) => out.extend(vocabulary::byte_value(text)),
            (Pieces::SentencePiece { .. }, _) => {
                for (index, part) in text.split(sentencepiece::SPACE).enumerate() {
                    if index > 0 {
                        out.push(b' ');
                    }
                    out.extend_from_slice(part.as_bytes());
                }
            }
            (Pieces::ByteLevel, Kind::Normal | Kind::Unused) => byte_level::push_bytes(text, out),
            (Pieces::ByteLevel | Pieces::Whole, _) => out.extend_from_slice(text.as_bytes()),
        }
        Ok(())
    }

    fn decode_whole(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        match &self.encoder {
            Encoder::Json { parsing, .. } => parsing.decode(ids, skip_special).map_err(failed),
            Encoder::Bpe(_) => Ok(String::new()),
        }
    }
}

impl BpeEncoder {
    fn new(
        vocabulary: &Vocabulary,
        model: BPE,
        normalizer: Option<NormalizerWrapper>,
        pre_tokenizer: Option<PreTokenizerWrapper>,
        pieces: Pieces,
    ) -> Result<BpeEncoder> {
        let is_total = vocabulary.unknown.is_some()
            || match pieces {
                Pieces::ByteLevel => byte_level::characters()
                    .iter()
                    .all(|character| vocabulary.id(character.encode_utf8(&mut [0; 4])).is_some()),
                _ => (0..=255).all(|byte| vocabulary.id(&format!("<0x{byte:02X}>")).is_some()),
            };
        let user_defined = added(vocabulary, |kind| kind == Kind::UserDefined)?;
        let special = added(vocabulary, |kind| matches!(kind, Kind::UserDefined | Kind::Control | Kind::Unknown))?;
        Ok(BpeEncoder { model, normalizer, pre_tokenizer, user_defined, special, is_total })
    }

    fn encode(&self, text: &str, parse_special: bool, ids: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let added = if parse_special { &self.special } else { &self.user_defined };
        let mut pieces = added.extract_and_normalize(self.normalizer.as_ref(), text);
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        pieces
            .tokenize(|piece| {
                let piece = piece.get();
                let is_word = || self.model.ignore_merges && self.model.token_to_id(piece).is_some();
                if !self.is_total
                    && !is_word()
                    && let Some(lost) = piece.chars().find(|character| !self.has_token(*character))
                {
                    return Err(format!("found {lost:?}, which has no token, and no token for the unknown").into());
                }
                self.model.tokenize(piece)
            })
            .map_err(failed)?;
        for (_, _, tokens) in pieces.get_splits(OffsetReferential::Original, OffsetType::None) {
            ids.extend(tokens.iter().flatten().map(|token| token.id));
        }
        Ok(())
    }

    fn has_token(&self, character: char) -> bool {
        let mut buffer = [0; 4];
        let text = &*character.encode_utf8(&mut buffer);
        let bytes = || text.bytes().all(|byte| self.model.token_to_id(&format!("<0x{byte:02X}>")).is_some());
        self.model.token_to_id(text).is_some() || self.model.byte_fallback && bytes()
    }
}

/// Tokens that are matched whole in a text, before anything else is done to it.
fn added(vocabulary: &Vocabulary, matched: impl Fn(Kind) -> bool) -> Result<AddedVocabulary> {
    let tokens = || vocabulary.iter().filter(|(_, token, kind)| matched(*kind) && !token.is_empty());
    // The crate asks a model for the ids of added tokens: one that knows nothing else keeps them as the file has them.
    let ids = WordLevel::builder().vocab(tokens().map(|(id, token, _)| (token.to_owned(), id)).collect());
    let ids = ids.build().map_err(failed)?;
    let mut added = AddedVocabulary::new();
    let normalized = tokens().map(|(_, token, _)| AddedToken::from(token, true).normalized(false));
    added.add_tokens(normalized, &ids, None::<&NormalizerWrapper>).map_err(failed)?;
    Ok(added)
}

fn failed(error: tokenizers::Error) -> Error {
    Error::tokenizer(format!("tokenizer: {error}"))
}
