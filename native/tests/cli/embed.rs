//! `embed` and `search` on a small random encoder.

use std::path::PathBuf;

use anygpu::models::bert::testing::{tiny_config, tiny_json, tiny_safetensors};
use serde_json::{Value, json};

use super::{Folder, anygpu, anygpu_with, json as run_json, passes, stderr};

/// A model's folder: words of one letter are tokens.
fn model(folder: &Folder) -> String {
    let path = folder.path("tiny");
    std::fs::create_dir_all(&path).unwrap();
    let config = tiny_config();
    let mut vocab = serde_json::Map::new();
    for (id, word) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].into_iter().enumerate() {
        vocab.insert(word.into(), id.into());
    }
    for (id, letter) in ('a'..='z').enumerate() {
        vocab.insert(letter.into(), (id + 4).into());
    }
    let piece = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "[CLS]": piece("[CLS]", 2), "[SEP]": piece("[SEP]", 3) } },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab },
    });
    std::fs::write(path.join("config.json"), tiny_json(&config)).unwrap();
    std::fs::write(path.join("model.safetensors"), tiny_safetensors(&config, 3, "").unwrap()).unwrap();
    std::fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let prompts = r#"{"prompts":{"query":"q q "}}"#;
    std::fs::write(path.join("config_sentence_transformers.json"), prompts).unwrap();
    path.to_str().unwrap().to_owned()
}

fn write(path: PathBuf, text: &str) -> String {
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn embed_writes_every_format() {
    let folder = Folder::new("embed");
    let model = model(&folder);
    let lines = passes(&["embed", "--plain", "-m", &model, "a b c", "x"]);
    let lines: Vec<Vec<f64>> = lines.lines().map(|line| numbers(&serde_json::from_str(line).unwrap())).collect();
    assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64]);

    let file = write(folder.path("texts.jsonl"), "{\"body\":\"a b c\"}\n\n{\"body\":\"x\",\"other\":1}\n");
    let arguments = ["embed", "--plain", "-m", &model, "-i", &file, "--jsonl", "--field", "body", "--json"];
    let found = run_json(&arguments);
    assert_eq!((&found["texts"], &found["dimensions"], &found["truncated"]), (&json!(2), &json!(64), &json!(0)));
    for (vector, expected) in found["vectors"].as_array().unwrap().iter().zip(&lines) {
        assert!(near(&numbers(vector), expected));
    }
    for (name, start) in [("o.npy", &b"\x93NUMPY"[..]), ("o.safetensors", b""), ("o.json", b"[[")] {
        let path = folder.path(name);
        passes(&["embed", "--plain", "-m", &model, "a b c", "x", "-o", path.to_str().unwrap()]);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(start), "{name}");
        if name != "o.json" {
            let last = bytes.last_chunk::<4>().unwrap();
            assert!((f64::from(f32::from_le_bytes(*last)) - lines[1][63]).abs() < 1e-5, "{name}");
        }
    }
    // A prompt of the model's files, and the same by hand.
    let by_name = passes(&["embed", "--plain", "-m", &model, "a", "--prompt", "query"]);
    assert_eq!(by_name, passes(&["embed", "--plain", "-m", &model, "a", "--prefix", "q q "]));
    assert_eq!(by_name, passes(&["embed", "--plain", "-m", &model, "q q a"]));
    let output = anygpu_with(&["embed", "--plain", "-m", &model, "-i", "-", "--max-tokens", "4"], "a b c\n");
    assert!(output.status.success() && stderr(&output).contains("1 of 1 texts have more than 4 tokens"), "{output:?}");
}

#[test]
fn search_finds_what_was_indexed() {
    let folder = Folder::new("search");
    let model = model(&folder);
    let texts = write(folder.path("texts.txt"), "a b c d\nx y z\nm n o p q\n");
    let index = folder.path("index.safetensors").to_str().unwrap().to_owned();
    let built = run_json(&["search", "build", "-m", &model, &texts, "--index", &index, "--json"]);
    assert_eq!((&built["texts"], &built["dtype"]), (&json!(3), &json!("f16")));
    let query = |arguments: &[&str]| {
        run_json(&[&["search", "query", "-m", &model, "--index", &index, "--json"], arguments].concat())["results"]
            .clone()
    };
    let found = query(&["x y z", "a b c d", "-k", "2"]);
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert_eq!((&found[0]["hits"][0]["id"], &found[0]["hits"][0]["text"]), (&json!(1), &json!("x y z")));
    assert!(found[0]["hits"][0]["score"].as_f64().unwrap() > 0.999);
    assert_eq!((found[0]["hits"].as_array().unwrap().len(), &found[1]["hits"][0]["id"]), (2, &json!(0)));

    let more = write(folder.path("more.txt"), "k k k\n");
    passes(&["search", "add", "-m", &model, &more, "--index", &index]);
    passes(&["search", "remove", "1", "--index", &index]);
    let found = query(&["x y z"]);
    let ids: Vec<&Value> = found[0]["hits"].as_array().unwrap().iter().map(|hit| &hit["id"]).collect();
    assert!(ids.len() == 3 && !ids.contains(&&json!(1)) && ids.contains(&&json!(3)), "{ids:?}");
    let table = passes(&["search", "query", "-m", &model, "--index", &index, "k k k", "-k", "1"]);
    assert!(table.trim_end().ends_with("3  k k k"), "{table}");
}

#[test]
fn what_cannot_be_is_one_line() {
    let folder = Folder::new("embed-errors");
    let model = model(&folder);
    let not_an_index = write(folder.path("x.safetensors"), "not a header at all");
    for (arguments, code, expected) in [
        (
            &["embed", "-m", &model, "a", "-o", "x.txt"][..],
            2,
            "expected a name that ends in .json, .npy or .safetensors",
        ),
        (&["embed", "-m", "nowhere", "a"], 1, "nowhere"),
        (
            &["embed", "-m", &model, "a", "--prompt", "passage"],
            1,
            "prompt \"passage\": not found, expected one of: query",
        ),
        (&["embed", "-m", &model, "a", "--dtype", "q4_k"], 1, "expected a multiple of 256"),
        (&["embed", "-m", &model, "a", "--max-tokens", "500"], 1, "500 tokens of a text: expected 3 to 80"),
        (&["search", "query", "-m", &model, "--index", &not_an_index, "a"], 1, "safetensors: header of"),
    ] {
        let output = anygpu(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).trim_end().lines().count(), 1, "{}", stderr(&output));
    }
}
