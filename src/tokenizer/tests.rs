//! Against the ids of Hugging Face's tokenizers, stored by `src/testdata/tokenizer/make.py`.

mod properties;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::*;
use crate::error::ErrorKind;
use crate::format::metadata::Value;

const FIXTURES: [(&str, &str); 5] = [
    ("llama", include_str!("../testdata/tokenizer/llama.json")),
    ("llama-bpe", include_str!("../testdata/tokenizer/llama-bpe.json")),
    ("qwen2", include_str!("../testdata/tokenizer/qwen2.json")),
    ("smollm", include_str!("../testdata/tokenizer/smollm.json")),
    ("gpt-2", include_str!("../testdata/tokenizer/gpt-2.json")),
];

struct Fixture {
    name: &'static str,
    metadata: Metadata,
    tokenizer: Tokenizer,
    /// For each text: ids with special tokens as plain text, ids with special tokens parsed.
    ids: Vec<[Vec<u32>; 2]>,
    /// What the first of them decode to, by the text's index, where that is not the text.
    decoded: BTreeMap<usize, String>,
}

fn value(json: &Json) -> Value {
    match json {
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => Value::Uint(number.as_u64().unwrap()),
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) if items.iter().all(Json::is_string) => {
            Value::Strings(items.iter().map(|item| item.as_str().unwrap().to_owned()).collect())
        }
        Json::Array(items) if items.iter().all(Json::is_i64) => {
            Value::Ints(items.iter().map(|item| item.as_i64().unwrap()).collect())
        }
        Json::Array(items) => Value::Floats(items.iter().map(|item| item.as_f64().unwrap() as f32).collect()),
        _ => panic!("fixture holds {json}"),
    }
}

fn texts() -> Vec<String> {
    serde_json::from_str(include_str!("../testdata/tokenizer/texts.json")).unwrap()
}

fn fixtures() -> Vec<Fixture> {
    let read = |(name, text): &(&'static str, &str)| {
        let json: Json = serde_json::from_str(text).unwrap();
        let metadata: Metadata =
            json["metadata"].as_object().unwrap().iter().map(|(key, item)| (key.as_str(), value(item))).collect();
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let ids = serde_json::from_value(json["ids"].clone()).unwrap();
        let decoded = serde_json::from_value(json["decoded"].clone()).unwrap();
        Fixture { name, metadata, tokenizer, ids, decoded }
    };
    FIXTURES.iter().map(read).collect()
}

fn options(parse_special: bool) -> EncodeOptions {
    EncodeOptions { add_special: false, parse_special }
}

#[test]
fn ids_equal_those_of_hugging_face() {
    let (texts, mut failures, mut compared) = (texts(), Vec::new(), 0);
    for Fixture { name, tokenizer, ids, .. } in fixtures() {
        assert_eq!(ids.len(), texts.len(), "{name}");
        for (text, expected) in texts.iter().zip(&ids) {
            for (parse_special, expected) in [false, true].into_iter().zip(expected) {
                let found = tokenizer.encode(text, options(parse_special)).unwrap();
                compared += 1;
                if found != *expected {
                    failures.push(format!("{name}, parse {parse_special}, {text:?}:\n  {found:?}\n  {expected:?}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {compared}:\n{}", failures.len(), failures.join("\n"));
    assert!(compared >= 5 * 2 * 60, "only {compared} cases");
}

#[test]
fn decoding_gives_the_text_back() {
    let mut failures = Vec::new();
    for Fixture { name, tokenizer, ids, decoded, .. } in fixtures() {
        // Qwen 2 reads text in Unicode's normal form C; SentencePiece reads its own mark as a space and puts one after
        // each added token.
        let most = match name {
            "llama" => 2,
            "qwen2" => 4,
            _ => 0,
        };
        assert!(decoded.len() <= most, "{name}: {} texts do not come back: {decoded:?}", decoded.len());
        for (index, (text, ids)) in texts().iter().zip(&ids).enumerate() {
            let expected = decoded.get(&index).unwrap_or(text);
            let found = tokenizer.decode(&ids[0], false).unwrap();
            if found != *expected {
                failures.push(format!("{name}: {expected:?}\n  {found:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn decoding_step_by_step_gives_the_same_at_every_prefix() {
    for Fixture { name, tokenizer, ids, .. } in fixtures() {
        for (index, ids) in ids.iter().flatten().enumerate() {
            for skip_special in [false, true] {
                let mut decoder = tokenizer.decoder();
                if !skip_special {
                    decoder = decoder.keep_special();
                }
                let mut text = String::new();
                for (step, id) in ids.iter().enumerate() {
                    text.push_str(&decoder.push(*id).unwrap());
                    let whole = tokenizer.decode(&ids[..=step], skip_special).unwrap();
                    let finished = text.clone() + &decoder.clone().finish();
                    assert_eq!(finished, whole, "{name}, text {}, {} tokens", index / 2, step + 1);
                }
            }
        }
    }
}

#[test]
fn a_decoder_waits_for_the_end_of_a_character() {
    for Fixture { name, tokenizer, .. } in fixtures() {
        let ids = tokenizer.encode("🦜", EncodeOptions::default()).unwrap();
        let bytes = ids.len() - usize::from(name == "llama");
        assert!(bytes > 1, "{name}: {ids:?}, expected a character of several tokens");
        let mut decoder = tokenizer.decoder();
        let (last, first) = ids.split_last().unwrap();
        for id in first {
            assert_eq!(decoder.push(*id).unwrap(), "", "{name}");
        }
        assert_eq!(decoder.clone().finish(), "\u{fffd}", "{name}");
        // A whole character after half a one: the half is given up, the whole one kept.
        let next = tokenizer.encode("a", EncodeOptions::default()).unwrap();
        let mut interrupted = decoder.clone();
        let text: String = next.iter().map(|id| interrupted.push(*id).unwrap()).collect();
        assert_eq!(text.replace(' ', ""), "\u{fffd}a", "{name}");
        assert_eq!(decoder.push(*last).unwrap(), "🦜", "{name}");
        assert_eq!(decoder.finish(), "", "{name}");
    }
}

#[test]
fn text_after_a_prompt_keeps_its_space() {
    let Fixture { tokenizer, .. } = fixtures().remove(0);
    let ids = tokenizer.encode("time", EncodeOptions::default()).unwrap();
    let write = |mut decoder: Decoder| ids.iter().map(|id| decoder.push(*id).unwrap()).collect::<String>();
    assert_eq!(write(tokenizer.decoder()), "time");
    assert_eq!(write(tokenizer.decoder().after_text()), " time");
}

#[test]
fn special_tokens_are_added_as_the_file_says() {
    let add = EncodeOptions { add_special: true, parse_special: false };
    for Fixture { name, mut metadata, tokenizer, .. } in fixtures() {
        let (bos, eos) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
        let plain = tokenizer.encode("Hello", EncodeOptions::default()).unwrap();
        let adds_bos = matches!(name, "llama" | "llama-bpe");
        assert_eq!(tokenizer.adds_bos(), adds_bos, "{name}");
        let expected: Vec<u32> = adds_bos.then_some(bos).into_iter().chain(plain.iter().copied()).collect();
        assert_eq!(tokenizer.encode("Hello", add).unwrap(), expected, "{name}");
        metadata.insert("tokenizer.ggml.add_bos_token", Value::Bool(!adds_bos));
        metadata.insert("tokenizer.ggml.add_eos_token", Value::Bool(true));
        let expected: Vec<u32> = (!adds_bos).then_some(bos).into_iter().chain(plain).chain([eos]).collect();
        assert_eq!(Tokenizer::from_gguf(&metadata).unwrap().encode("Hello", add).unwrap(), expected, "{name}");
        assert!(tokenizer.is_end_of_generation(eos), "{name}");
        assert!(!tokenizer.is_end_of_generation(plain_id(&tokenizer)), "{name}");
        assert!(!tokenizer.is_end_of_generation(u32::MAX), "{name}");
        for known in ["<|im_end|>", "<|eot_id|>", "<|endoftext|>"] {
            if let Some(id) = tokenizer.token_id(known) {
                assert!(tokenizer.is_end_of_generation(id), "{name}: {known}");
            }
        }
    }
}

fn plain_id(tokenizer: &Tokenizer) -> u32 {
    tokenizer.encode("a", EncodeOptions::default()).unwrap()[0]
}

#[test]
fn a_prefix_space_is_added_only_where_the_file_asks() {
    let Fixture { mut metadata, tokenizer, .. } = fixtures().remove(0);
    metadata.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let bare = Tokenizer::from_gguf(&metadata).unwrap();
    let ids = bare.encode("Hello", EncodeOptions::default()).unwrap();
    assert_ne!(ids, tokenizer.encode("Hello", EncodeOptions::default()).unwrap());
    assert_eq!(bare.decode(&ids, true).unwrap(), "Hello");
    let spaced = bare.encode(" Hello", EncodeOptions::default()).unwrap();
    assert_eq!(bare.decode(&spaced, true).unwrap(), " Hello");
}

#[test]
fn ids_outside_the_vocabulary_are_errors() {
    for Fixture { name, tokenizer, .. } in fixtures() {
        let size = tokenizer.vocab_size();
        for id in [size as u32, u32::MAX] {
            let errors = [tokenizer.decode(&[id], true).unwrap_err(), tokenizer.decoder().push(id).unwrap_err()];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::Tokenizer, "{name}");
                assert!(error.to_string().contains(&id.to_string()), "{name}: {error}");
                assert!(error.to_string().contains(&size.to_string()), "{name}: {error}");
            }
            assert_eq!(tokenizer.token(id), None, "{name}");
        }
    }
}

#[test]
fn a_tokenizer_json_gives_the_same_ids() {
    let tokenizer = Tokenizer::from_json(include_bytes!("../testdata/tokenizer/gpt-2.tokenizer.json")).unwrap();
    let fixture = fixtures().pop().unwrap();
    for (text, ids) in texts().iter().zip(&fixture.ids) {
        for (parse_special, ids) in [false, true].into_iter().zip(ids) {
            assert_eq!(tokenizer.encode(text, options(parse_special)).unwrap(), *ids, "{text:?}");
            assert_eq!(tokenizer.decode(ids, false).unwrap(), *text);
        }
    }
    assert_eq!(tokenizer.vocab_size(), fixture.tokenizer.vocab_size());
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    assert!(tokenizer.is_end_of_generation(end));
    assert_eq!(tokenizer.decode(&[end], true).unwrap(), "");
    let mut decoder = tokenizer.decoder();
    let text: String = fixture.ids[10][0].iter().map(|id| decoder.push(*id).unwrap()).collect();
    assert_eq!(text, texts()[10]);
}

#[test]
fn a_broken_tokenizer_json_is_an_error() {
    let model = |model: &str| format!(r#"{{"version":"1.0","added_tokens":[],"model":{model}}}"#);
    let cases = [
        ("nothing", String::new()),
        ("no model", "{}".to_owned()),
        ("unknown model", model(r#"{"type":"Nonsense","vocab":{}}"#)),
        ("merge of unknown tokens", model(r#"{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}"#)),
        ("merge longer than any token", model(r#"{"type":"BPE","vocab":{"aa":0,"bb":1},"merges":[["aa","bb"]]}"#)),
        ("merge of three", model(r#"{"type":"BPE","vocab":{"a":0},"merges":[["a","a","a"]]}"#)),
        ("ids far apart", model(r#"{"type":"WordLevel","vocab":{"a":4000000000},"unk_token":"a"}"#)),
        ("empty vocabulary", model(r#"{"type":"WordLevel","vocab":{},"unk_token":"a"}"#)),
    ];
    for (name, json) in cases {
        let error = Tokenizer::from_json(json.as_bytes()).map(|_| ()).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Tokenizer, "{name}: {error}");
    }
}

/// A good vocabulary of each kind, small enough to break in one place at a time.
fn small(sentence_piece: bool) -> Metadata {
    let strings = |texts: &[&str]| Value::Strings(texts.iter().map(|text| text.to_string()).collect());
    Metadata::from_iter([
        ("tokenizer.ggml.model", Value::String(if sentence_piece { "llama" } else { "gpt2" }.into())),
        ("tokenizer.ggml.pre", Value::String("llama-bpe".into())),
        ("tokenizer.ggml.tokens", strings(&["<unk>", "<s>", "</s>", "a", "b", "ab"])),
        ("tokenizer.ggml.token_type", Value::Ints(vec![2, 3, 3, 1, 1, 1])),
        ("tokenizer.ggml.scores", Value::Floats(vec![0.0; 6])),
        ("tokenizer.ggml.merges", strings(&["a b"])),
        ("tokenizer.ggml.unknown_token_id", Value::Uint(0)),
        ("tokenizer.ggml.eos_token_id", Value::Uint(2)),
    ])
}

#[test]
fn broken_metadata_is_an_error_that_names_it() {
    let strings = |texts: &[&str]| Value::Strings(texts.iter().map(|text| text.to_string()).collect());
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let (both, spm, bpe) = (&[false, true][..], &[true][..], &[false][..]);
    // The key, its value, the kinds that read it, and the error.
    type Case<'a> = (&'a str, Value, &'a [bool], ErrorKind, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("model", Value::String("rwkv".into()), both, ErrorKind::Unsupported, "rwkv"),
        ("model", Value::String("no_vocab".into()), both, ErrorKind::Tokenizer, "no vocabulary"),
        ("model", Value::String("none".into()), both, ErrorKind::Tokenizer, "no vocabulary"),
        ("model", Value::Uint(1), both, ErrorKind::Format, "expected a string"),
        ("pre", Value::String("tekken".into()), bpe, ErrorKind::Unsupported, "tekken"),
        ("tokens", Value::Array(vec![]), both, ErrorKind::Tokenizer, "tokenizer.ggml.tokens"),
        ("tokens", strings(&[]), both, ErrorKind::Tokenizer, "0"),
        ("tokens", Value::Ints(vec![1; 6]), both, ErrorKind::Format, "array of integers"),
        ("tokens", strings(&["a", "b", "c", "d", "a", "f"]), both, ErrorKind::Tokenizer, "token 4"),
        ("tokens", strings(&["a", "b", "c", &"d".repeat(5000), "e", "f"]), both, ErrorKind::Tokenizer, "5000 bytes"),
        ("token_type", Value::Ints(vec![1; 5]), both, ErrorKind::Tokenizer, "found 5 types, expected 6"),
        ("token_type", Value::Ints(vec![1, 1, 1, 1, 1, 7]), both, ErrorKind::Tokenizer, "token type 7"),
        ("token_type", Value::Ints(vec![1, 1, 1, 1, -1, 1]), both, ErrorKind::Tokenizer, "token type -1"),
        ("token_type", Value::Ints(vec![2, 3, 3, 6, 1, 1]), spm, ErrorKind::Tokenizer, "<0xNN>"),
        ("token_type", strings(&["1"; 6]), both, ErrorKind::Format, "array of strings"),
        ("scores", Value::Floats(vec![0.0; 7]), spm, ErrorKind::Tokenizer, "found 7 scores, expected 6"),
        ("scores", Value::Array(vec![]), spm, ErrorKind::Tokenizer, "tokenizer.ggml.scores"),
        ("scores", Value::Floats(vec![f32::NAN; 6]), spm, ErrorKind::Tokenizer, "NaN"),
        ("merges", Value::Array(vec![]), bpe, ErrorKind::Tokenizer, "tokenizer.ggml.merges"),
        ("merges", strings(&["a b", "a c"]), bpe, ErrorKind::Tokenizer, "\"c\""),
        ("merges", strings(&["b a"]), bpe, ErrorKind::Tokenizer, "\"ba\""),
        ("merges", strings(&["ab"]), bpe, ErrorKind::Tokenizer, "two tokens"),
        ("merges", strings(&[""]), bpe, ErrorKind::Tokenizer, "two tokens"),
        ("merges", strings(&["a "]), bpe, ErrorKind::Tokenizer, "two tokens"),
        ("merges", strings(&["ab ab"]), bpe, ErrorKind::Tokenizer, "\"abab\""),
        ("eos_token_id", Value::Uint(6), both, ErrorKind::Tokenizer, "found 6, expected below 6"),
        ("bos_token_id", Value::Uint(u64::MAX), both, ErrorKind::Tokenizer, "bos_token_id"),
        ("eos_token_id", Value::String("2".into()), both, ErrorKind::Format, "a string"),
        ("add_bos_token", Value::Uint(1), both, ErrorKind::Format, "a boolean"),
    ];
    for (name, value, kinds, kind, part) in cases {
        for sentence_piece in kinds {
            let mut metadata = small(*sentence_piece);
            assert!(Tokenizer::from_gguf(&metadata).is_ok());
            metadata.insert(key(name), value.clone());
            let error = Tokenizer::from_gguf(&metadata).map(|_| ()).expect_err(name);
            let case = format!("{name} = {:.60}, SentencePiece {sentence_piece}: {error}", format!("{value:?}"));
            assert_eq!(error.kind(), kind, "{case}");
            assert!(error.to_string().contains(part), "{case}");
        }
    }
    let error = Tokenizer::from_gguf(&Metadata::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tokenizer);
}

#[test]
fn characters_without_a_token_are_errors_unless_one_stands_for_them() {
    for sentence_piece in [false, true] {
        let mut metadata = small(sentence_piece);
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let found = tokenizer.encode("ab?", EncodeOptions::default()).unwrap();
        assert_eq!(found, if sentence_piece { vec![0, 5, 0] } else { vec![5, 0] });
        // Without unknown token: SentencePiece's default is named <unk>, so that goes as well.
        metadata = metadata
            .iter()
            .filter(|(key, _)| *key != "tokenizer.ggml.unknown_token_id")
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        let tokens = ["<none>", "<s>", "</s>", "a", "b", "ab"].map(str::to_owned).to_vec();
        metadata.insert("tokenizer.ggml.tokens", Value::Strings(tokens));
        metadata.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        assert_eq!(tokenizer.encode("ab", EncodeOptions::default()).unwrap(), [5]);
        let error = tokenizer.encode("ab?", EncodeOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tokenizer);
        assert!(error.to_string().contains("'?'"), "{error}");
    }
}

#[test]
fn text_cannot_spell_a_control_token() {
    // The merges and scores below would join "<", "s>" to the control token.
    let strings = |texts: &[&str]| Value::Strings(texts.iter().map(|text| text.to_string()).collect());
    for sentence_piece in [false, true] {
        let mut metadata = small(sentence_piece);
        metadata.insert("tokenizer.ggml.tokens", strings(&["<unk>", "<s>", "</s>", "<", "s", ">", "s>"]));
        metadata.insert("tokenizer.ggml.token_type", Value::Ints(vec![2, 3, 3, 1, 1, 1, 1]));
        metadata.insert("tokenizer.ggml.scores", Value::Floats(vec![0.0; 7]));
        metadata.insert("tokenizer.ggml.merges", strings(&["s >", "< s>"]));
        metadata.insert("tokenizer.ggml.pre", Value::String("default".into()));
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        assert!(!tokenizer.encode("<s>", options(false)).unwrap().contains(&1));
        assert_eq!(tokenizer.encode("<s>", options(true)).unwrap(), [1]);
    }
}

#[test]
fn tokenizers_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Tokenizer>();
    check::<Decoder>();
}
