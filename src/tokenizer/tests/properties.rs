//! What holds for any text, any ids and any metadata.

use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Fixture, fixtures};
use crate::ErrorKind;
use crate::format::metadata::{Metadata, Value};
use crate::tokenizer::{EncodeOptions, Tokenizer};

fn shared() -> &'static [Fixture] {
    static FIXTURES: OnceLock<Vec<Fixture>> = OnceLock::new();
    FIXTURES.get_or_init(fixtures)
}

/// Text of every plane, with white space, digits, apostrophes and pieces of tokens far more often than chance has them.
fn text() -> impl Strategy<Value = String> {
    let pieces = [
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "'s",
        "'LL",
        "1",
        "12345",
        "\u{665}",
        "the",
        " The",
        "<s>",
        "</s>",
        "<tool>",
        "<|im_end|>",
        "<|im_start|>",
        "<0x0A>",
        "\u{2581}",
        "\u{120}",
        "e\u{301}",
        "👩\u{200d}🚀",
        "🇩🇪",
        "\u{1112}\u{1161}",
        "\u{0}",
        "\u{fffd}",
    ];
    let piece = prop_oneof![
        3 => prop::sample::select(pieces.to_vec()).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
        1 => "[a-zA-Z]{1,9}",
        1 => "\\PC{0,4}",
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// The text of ids, a token at a time.
fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let decoder = tokenizer.decoder();
    let mut decoder = if skip_special { decoder } else { decoder.keep_special() };
    let mut text: String = ids.iter().map(|id| decoder.push(*id).unwrap()).collect();
    text.push_str(&decoder.finish());
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_back(text in text()) {
        for Fixture { name, tokenizer, .. } in shared() {
            for parse_special in [false, true] {
                let ids = tokenizer.encode(&text, EncodeOptions { add_special: false, parse_special }).unwrap();
                let back = tokenizer.decode(&ids, false).unwrap();
                prop_assert_eq!(&stream(tokenizer, &ids, false), &back, "{}", name);
                match *name {
                    // Each added token starts a stretch of text anew, with a space in front.
                    "llama" => prop_assert_eq!(
                        back.replace(' ', ""), text.replace(['\u{2581}', ' '], ""), "{} {}", name, parse_special
                    ),
                    // In normal form, the text stays what it is.
                    "qwen2" => {
                        let again = tokenizer.encode(&back, EncodeOptions { add_special: false, parse_special }).unwrap();
                        prop_assert_eq!(tokenizer.decode(&again, false).unwrap(), back, "{}", name);
                    }
                    _ => prop_assert_eq!(&back, &text, "{} {}", name, parse_special),
                }
            }
        }
    }

    #[test]
    fn any_ids_decode_alike_at_once_and_in_steps(ids in vec(any::<u32>(), 0..40), skip_special in any::<bool>()) {
        for Fixture { name, tokenizer, .. } in shared() {
            let ids: Vec<u32> = ids.iter().map(|id| id % tokenizer.vocab_size() as u32).collect();
            let whole = tokenizer.decode(&ids, skip_special).unwrap();
            prop_assert_eq!(stream(tokenizer, &ids, skip_special), whole, "{}", name);
        }
    }

    #[test]
    fn any_metadata_gives_a_tokenizer_or_an_error(
        sentence_piece in any::<bool>(),
        pre in prop::sample::select(vec!["default", "gpt-2", "llama-bpe", "qwen2", "smollm"]),
        tokens in vec("[ab<>\u{2581}\u{120}é0x4]{0,3}|<0x[0-4][0-9A-F]>", 0..24),
        numbers in vec(0_i64..8, 0..24),
        scores in vec(any::<f32>(), 0..24),
        merges in vec("[ab<>\u{120} ]{0,5}", 0..8),
        special in vec(0_u64..26, 3),
        text in text(),
    ) {
        // Most random lists have different lengths: bring them to one, mostly.
        let length = tokens.len();
        let mut kinds: Vec<i64> = numbers.iter().copied().chain(std::iter::repeat(1)).take(length).collect();
        kinds.iter_mut().for_each(|kind| *kind = if *kind == 6 { 1 } else { *kind });
        let mut scores: Vec<f32> = scores.iter().copied().chain(std::iter::repeat(0.0)).take(length).collect();
        if special[0] == 25 {
            scores.pop();
        }
        let metadata = Metadata::from_iter([
            ("tokenizer.ggml.model", Value::String(if sentence_piece { "llama" } else { "gpt2" }.into())),
            ("tokenizer.ggml.pre", Value::String(pre.into())),
            ("tokenizer.ggml.tokens", Value::Strings(tokens)),
            ("tokenizer.ggml.token_type", Value::Ints(kinds)),
            ("tokenizer.ggml.scores", Value::Floats(scores)),
            ("tokenizer.ggml.merges", Value::Strings(merges)),
            ("tokenizer.ggml.bos_token_id", Value::Uint(special[0])),
            ("tokenizer.ggml.eos_token_id", Value::Uint(special[1])),
            ("tokenizer.ggml.unknown_token_id", Value::Uint(special[2])),
        ]);
        match Tokenizer::from_gguf(&metadata) {
            Ok(tokenizer) => {
                let options = EncodeOptions { add_special: true, parse_special: true };
                match tokenizer.encode(&text, options) {
                    Ok(ids) => {
                        prop_assert!(ids.iter().all(|id| tokenizer.token(*id).is_some()), "{ids:?}");
                        prop_assert_eq!(stream(&tokenizer, &ids, true), tokenizer.decode(&ids, true).unwrap());
                    }
                    Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Tokenizer, "{}", error),
                }
            }
            Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::Tokenizer | ErrorKind::Format), "{}", error),
        }
    }
}
