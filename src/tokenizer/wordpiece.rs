//! WordPiece of a GGUF file (`tokenizer.ggml.model` `bert`), run by the `tokenizers` crate as the `tokenizer.json` that the
//! file was made from.
//!
//! The file marks the beginnings of words where WordPiece marks what continues one, and does not say whether text is put
//! into lower case: it is, unless the vocabulary has tokens in upper case.

use std::collections::BTreeMap;

use serde_json::json;

use super::json;
use super::sentencepiece::SPACE;
use super::vocabulary::{Kind, Vocabulary};
use super::{Encoder, Inner};
use crate::error::{Error, Result};
use crate::format::metadata::Metadata;

const CONTINUED: &str = "##";
/// Longer words become one unknown token, as in every published tokenizer of the family.
const MAX_WORD_CHARS: usize = 100;

/// The tokenizer of `metadata`.
pub(super) fn read(metadata: &Metadata) -> Result<Inner> {
    let vocabulary = Vocabulary::from_gguf(metadata, false)?;
    let id = |keys: &[&str], name: &str| -> Result<(u32, String)> {
        for key in keys {
            if let Some(id) = metadata.u64(&format!("tokenizer.ggml.{key}_token_id"))? {
                let token = u32::try_from(id).ok().and_then(|id| Some((id, vocabulary.token(id)?)));
                let (id, token) = token.ok_or_else(|| {
                    Error::tokenizer(format!("metadata tokenizer.ggml.{key}_token_id: found {id}, expected a token's"))
                })?;
                return Ok((id, token.to_owned()));
            }
        }
        let found = vocabulary.id(name).map(|id| (id, name.to_owned()));
        found.ok_or_else(|| Error::tokenizer(format!("token {name}: not found, expected one in the vocabulary")))
    };
    let unknown = id(&["unknown"], "[UNK]")?;
    let first = id(&["cls", "bos"], "[CLS]")?;
    // Converters write the key with this spelling.
    let last = id(&["seperator", "separator", "eos"], "[SEP]")?;
    let special = [&unknown, &first, &last].map(|(id, _)| *id);

    let mut vocab: BTreeMap<String, u32> = BTreeMap::new();
    let mut added = Vec::new();
    let mut lowercase = true;
    for (id, token, kind) in vocabulary.iter() {
        let is_special = special.contains(&id) || kind == Kind::Control;
        let is_bracketed = token.starts_with('[') && token.ends_with(']');
        let text = match token.strip_prefix(SPACE) {
            _ if is_special || is_bracketed && kind != Kind::Normal => token.to_owned(),
            Some(word) => word.to_owned(),
            None if is_bracketed => token.to_owned(),
            None => format!("{CONTINUED}{token}"),
        };
        if is_special {
            added.push(json!({ "id": id, "content": text, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false }));
        } else {
            // Letters such as ℝ are upper case with no lower one: a vocabulary in lower case has them too.
            lowercase &= is_bracketed || token.chars().all(|c| c.to_lowercase().eq([c]));
        }
        if let Some(other) = vocab.insert(text, id) {
            return Err(Error::tokenizer(format!("token {id}: {token:?} is also token {other}, expected each once")));
        }
    }
    let piece = |(id, token): &(u32, String)| json!({ "id": token, "ids": [id], "tokens": [token] });
    let place = |(_, token): &(u32, String)| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let text = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
    let file = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": lowercase },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing",
            "single": [place(&first), text("A"), place(&last)],
            "pair": [place(&first), text("A"), place(&last), text("B"), place(&last)],
            "special_tokens": { first.1.clone(): piece(&first), last.1.clone(): piece(&last) } },
        "decoder": { "type": "WordPiece", "prefix": CONTINUED, "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": unknown.1, "continuing_subword_prefix": CONTINUED,
            "max_input_chars_per_word": MAX_WORD_CHARS, "vocab": vocab },
    });
    let mut inner = json::read(file.to_string().as_bytes())?;
    debug_assert!(matches!(inner.encoder, Encoder::Json { .. }));
    inner.vocabulary.bos = Some(first.0);
    inner.vocabulary.eos = Some(last.0);
    Ok(inner)
}
