//! `tokenizer.json`, run by the `tokenizers` crate as it stands.

use serde_json::Value;

use super::vocabulary::{Kind, Vocabulary};
use super::{Encoder, Inner, Pieces};
use crate::error::{Error, Result};

/// Reads a `tokenizer.json`; see [`Tokenizer::from_json`](super::Tokenizer::from_json).
pub(super) fn read(bytes: &[u8]) -> Result<Inner> {
    let broken = |message: &dyn std::fmt::Display| Error::tokenizer(format!("tokenizer.json: {message}"));
    let json: Value = serde_json::from_slice(bytes).map_err(|error| broken(&error))?;
    check_merges(&json["model"])?;
    let plain = {
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| broken(&error))?;
        tokenizer.set_encode_special_tokens(true);
        // What a text is cut to and filled up with is for whoever uses the ids; files state what a trainer used.
        tokenizer.with_truncation(None).map_err(|error| broken(&error))?.with_padding(None);
        tokenizer
    };
    let mut parsing = plain.clone();
    parsing.set_encode_special_tokens(false);

    let entries = parsing.get_vocab(true);
    let rows = entries.values().max().map_or(0, |id| *id as usize + 1);
    if rows > 2 * entries.len() + 1024 {
        return Err(broken(&format!("found id {}, expected ids near the {} tokens", rows - 1, entries.len())));
    }
    // Ids between may belong to no token: they keep an unused name of their own.
    let mut tokens: Vec<String> = (0..rows).map(|id| format!("<unassigned {id}>")).collect();
    let mut kinds = vec![Kind::Unused; rows];
    let added = parsing.get_added_tokens_decoder();
    for (token, id) in entries {
        kinds[id as usize] = match added.get(&id) {
            Some(token) if token.special => Kind::Control,
            Some(_) => Kind::UserDefined,
            None => Kind::Normal,
        };
        tokens[id as usize] = token;
    }
    let vocabulary = Vocabulary::new(tokens, kinds)?;
    Ok(Inner {
        vocabulary,
        pieces: Pieces::Whole,
        encoder: Encoder::Json { plain: Box::new(plain), parsing: Box::new(parsing) },
        add_bos: false,
        add_eos: false,
    })
}

/// The crate indexes past its buffer for a pair that is longer than every token, so pairs are checked first.
fn check_merges(model: &Value) -> Result<()> {
    if model["continuing_subword_prefix"].as_str().is_some_and(|prefix| !prefix.is_empty())
        && model["merges"].is_array()
    {
        return Err(Error::unsupported("tokenizer.json: found merges with continuing_subword_prefix, expected none"));
    }
    for (rank, merge) in model["merges"].as_array().into_iter().flatten().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        };
        let known = |token: &str| model["vocab"].get(token).is_some();
        if !pair.is_some_and(|(left, right)| known(left) && known(right) && known(&format!("{left}{right}"))) {
            return Err(Error::tokenizer(format!(
                "tokenizer.json: merge {rank} is {merge}, expected two tokens that join to one"
            )));
        }
    }
    Ok(())
}
