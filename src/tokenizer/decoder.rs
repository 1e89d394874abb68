//! Tokens to text, one at a time.

use std::sync::Arc;

use super::{Inner, Tokenizer};
use crate::error::{Error, Result};

/// Text from tokens as they come: whole characters only, and together exactly what [`Tokenizer::decode`] gives for all
/// of them. Made by [`Tokenizer::decoder`].
///
/// ```
/// use anygpu::format::metadata::{Metadata, Value};
/// # use anygpu::tokenizer::Tokenizer;
/// let strings = |texts: &[&str]| Value::Strings(texts.iter().map(|text| text.to_string()).collect());
/// let tokenizer = Tokenizer::from_gguf(&Metadata::from_iter([
///     ("tokenizer.ggml.model", Value::String("llama".into())),
///     ("tokenizer.ggml.tokens", strings(&["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "\u{2581}caf"])),
///     ("tokenizer.ggml.scores", Value::Floats(vec![0.0; 6])),
///     ("tokenizer.ggml.token_type", Value::Ints(vec![2, 3, 3, 6, 6, 1])),
/// ]))?;
/// let mut decoder = tokenizer.decoder();
/// assert_eq!(decoder.push(1)?, ""); // <s> is no text
/// assert_eq!(decoder.push(5)?, "caf"); // without the space that encoding puts in front
/// assert_eq!(decoder.push(3)?, ""); // half a character
/// assert_eq!(decoder.push(4)?, "é");
/// assert_eq!(decoder.finish(), "");
/// # Ok::<(), anygpu::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Decoder {
    inner: Arc<Inner>,
    skip_special: bool,
    /// A space at the very start is the one that encoding added.
    strip_space: bool,
    /// Bytes of a character that is not whole yet: at most three.
    pending: Vec<u8>,
    /// For vocabularies whose text is not made of bytes: every id, and the text given out.
    history: Vec<u32>,
    given: String,
}

impl Decoder {
    pub(super) fn new(tokenizer: &Tokenizer) -> Decoder {
        let inner = tokenizer.inner.clone();
        let strip_space = inner.strips_space();
        Decoder {
            inner,
            skip_special: true,
            strip_space,
            pending: Vec::new(),
            history: Vec::new(),
            given: String::new(),
        }
    }

    /// Writes control tokens out, as `<s>`, in place of leaving them out.
    #[must_use]
    pub fn keep_special(mut self) -> Decoder {
        self.skip_special = false;
        self
    }

    /// The tokens follow other text, such as a prompt: a space in front of the first is kept.
    #[must_use]
    pub fn after_text(mut self) -> Decoder {
        self.strip_space = false;
        self
    }

    /// Takes the next token and returns the characters that it completes, which may be none.
    ///
    /// # Errors
    /// `Tokenizer` for an id outside the vocabulary; `Unsupported` where a decoder from a `tokenizer.json` goes back on
    /// text that it gave.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.inner.is_made_of_bytes() {
            let skip_special = self.skip_special;
            self.inner.push_piece(id, skip_special, &mut self.pending)?;
            if self.strip_space && !self.pending.is_empty() {
                self.strip_space = false;
                if self.pending[0] == b' ' {
                    self.pending.remove(0);
                }
            }
            return Ok(self.take_characters());
        }
        self.inner.check(id)?;
        self.history.push(id);
        let text = self.inner.decode_whole(&self.history, self.skip_special)?;
        let fresh = text.strip_prefix(&self.given).map(str::to_owned);
        self.given = text;
        fresh.ok_or_else(|| {
            Error::unsupported(format!("decoder: token {id} changed earlier text, expected it to append"))
        })
    }

    /// Ends the text: U+FFFD for a character that was not completed, else nothing.
    pub fn finish(self) -> String {
        if self.pending.is_empty() { String::new() } else { char::REPLACEMENT_CHARACTER.to_string() }
    }

    /// Moves whole characters out of `pending`; bytes that no continuation can make valid become U+FFFD, as in
    /// [`String::from_utf8_lossy`].
    fn take_characters(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    match error.error_len() {
                        Some(invalid) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &rest[invalid..];
                        }
                        None => break,
                    }
                }
            }
        }
        let taken = self.pending.len() - rest.len();
        self.pending.drain(..taken);
        text
    }
}
