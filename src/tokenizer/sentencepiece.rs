//! SentencePiece BPE as the `tokenizers` crate runs it: the file holds scores, the crate wants merges.

use tokenizers::NormalizerWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence};

use super::vocabulary::{Kind, Vocabulary, array};
use crate::error::{Error, Result};
use crate::format::metadata::Metadata;

/// The mark that stands for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// More merges than any vocabulary yields (Gemma's 256,000 tokens have 580,000): a bound on what a file can allocate.
const MAX_MERGES: usize = 8_000_000;

/// The model: characters joined in the order of the scores, bytes for what has no token.
pub(super) fn model(vocabulary: &Vocabulary, metadata: &Metadata) -> Result<BPE> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores = array(metadata, SCORES, Metadata::floats)?
        .ok_or_else(|| Error::tokenizer(format!("metadata {SCORES}: not found, expected one for each token")))?;
    if scores.len() != vocabulary.len() {
        let (found, expected) = (scores.len(), vocabulary.len());
        return Err(Error::tokenizer(format!("metadata {SCORES}: found {found} scores, expected {expected}")));
    }
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::tokenizer(format!("metadata {SCORES}: found NaN for token {id}, expected a number")));
    }
    // Control tokens stay out, so that text can never spell one.
    let words: Vocab = vocabulary
        .iter()
        .filter(|(_, _, kind)| *kind != Kind::Control)
        .map(|(id, token, _)| (token.to_owned(), id))
        .collect();
    let mut builder = BPE::builder().vocab_and_merges(words, merges(vocabulary, scores)?).byte_fallback(true);
    if let Some(token) = vocabulary.unknown.and_then(|id| vocabulary.token(id)) {
        builder = builder.unk_token(token.to_owned()).fuse_unk(true);
    }
    // The crate's cache is per thread and never dropped; whole texts would rarely hit it.
    builder.cache_capacity(0).build().map_err(|error| Error::tokenizer(format!("vocabulary: {error}")))
}

/// Every way to split a token into two tokens, the best score first: `generate_merges` of transformers'
/// `convert_slow_tokenizer.py`, whose order of equal scores (longer left part, longer right part, id) this keeps.
fn merges(vocabulary: &Vocabulary, scores: &[f32]) -> Result<Vec<(String, String)>> {
    struct Merge<'a> {
        score: f32,
        left: &'a str,
        right: &'a str,
        left_chars: usize,
        right_chars: usize,
        ids: (u32, u32),
    }
    let text = |kind| matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused);
    let part = |token: &str| vocabulary.id(token).filter(|id| text(vocabulary.kind(*id)));
    let mut all = Vec::new();
    let mut local = Vec::new();
    for (id, token, kind) in vocabulary.iter() {
        if !text(kind) {
            continue;
        }
        let chars = token.chars().count();
        for (left_chars, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(a), Some(b)) = (part(left), part(right)) {
                let right_chars = chars - left_chars;
                local.push(Merge { score: scores[id as usize], left, right, left_chars, right_chars, ids: (a, b) });
            }
        }
        local.sort_by_key(|merge| merge.ids);
        all.append(&mut local);
        if all.len() > MAX_MERGES {
            return Err(Error::tokenizer(format!("vocabulary: found over {MAX_MERGES} merges, expected fewer")));
        }
    }
    let order = |merge: &Merge<'_>| (merge.left_chars, merge.right_chars);
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| order(b).cmp(&order(a))));
    Ok(all.into_iter().map(|merge| (merge.left.to_owned(), merge.right.to_owned())).collect())
}

/// Spaces become marks; each stretch of text between added tokens gets one in front where the file asks for it.
pub(super) fn normalizer(add_space_prefix: bool) -> Result<NormalizerWrapper> {
    let replace = Replace::new(" ", SPACE).map_err(|error| Error::tokenizer(format!("normalizer: {error}")))?;
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if add_space_prefix {
        steps.push(Prepend::new(SPACE.to_owned()).into());
    }
    steps.push(replace.into());
    Ok(Sequence::new(steps).into())
}
