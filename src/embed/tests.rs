//! A small random encoder with a small vocabulary, from safetensors and from GGUF, against the reference.

use super::packing::fastest;
use super::*;
use crate::error::ErrorKind;
use crate::format::{Safetensors, Value};
use crate::gpu::Adapter;
use crate::kernels::testing::nmse;
use crate::models::bert::Reference;
use crate::models::bert::file::from_safetensors;
use crate::models::bert::plan::cost;
use crate::models::bert::testing::{tiny_config, tiny_gguf, tiny_json, tiny_safetensors};

const WORDS: [&str; 17] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "sit", "##s", "run", "##ning", "a", "b", "##c", ".", "on",
    "ℝ",
];

fn tokenizer_json() -> Vec<u8> {
    let vocab: serde_json::Map<_, _> = WORDS.iter().zip(0..).map(|(word, id)| (word.to_string(), id.into())).collect();
    let special = |id: usize| {
        serde_json::json!({ "id": id, "content": WORDS[id], "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false })
    };
    let piece = |name: &str, id: u32| serde_json::json!({ "id": name, "ids": [id], "tokens": [name] });
    serde_json::json!({
        "version": "1.0",
        // As published files have it: a trainer's, not to be followed.
        "truncation": { "max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
        "padding": { "strategy": { "Fixed": 4 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": (0..4).map(special).collect::<Vec<_>>(),
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "[CLS]": piece("[CLS]", 2), "[SEP]": piece("[SEP]", 3) } },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab },
    })
    .to_string()
    .into_bytes()
}

pub(super) fn files() -> ModelFiles {
    let config = tiny_config();
    ModelFiles {
        config: Some(tiny_json(&config)),
        tokenizer: Some(tokenizer_json()),
        ..ModelFiles::single(Arc::new(tiny_safetensors(&config, 3, "").unwrap()))
    }
}

/// The vocabulary as converters write it: beginnings of words are marked.
fn gguf_files() -> ModelFiles {
    let token = |word: &str| match word.strip_prefix("##") {
        Some(rest) => rest.to_owned(),
        None if word.starts_with('[') => word.to_owned(),
        None => format!("\u{2581}{word}"),
    };
    let kinds = (0..WORDS.len()).map(|id| if id < 4 { 3 } else { 1 }).collect();
    let more = vec![
        ("tokenizer.ggml.model", Value::String("bert".into())),
        ("tokenizer.ggml.tokens", Value::Strings(WORDS.iter().map(|word| token(word)).collect())),
        ("tokenizer.ggml.token_type", Value::Ints(kinds)),
        ("tokenizer.ggml.seperator_token_id", Value::Uint(3)),
        ("tokenizer.ggml.cls_token_id", Value::Uint(2)),
        ("tokenizer.ggml.unknown_token_id", Value::Uint(1)),
        ("bert.pooling_type", Value::Uint(1)),
    ];
    ModelFiles::single(Arc::new(tiny_gguf(&tiny_config(), 3, DType::F32, more).unwrap()))
}

fn embedder(files: ModelFiles, options: &LoadOptions) -> Embedder {
    pollster::block_on(async {
        let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
        Embedder::load(&context, files, options, |_| {}).await
    })
    .unwrap()
}

fn reference() -> Reference {
    let config = tiny_config();
    let bytes = tiny_safetensors(&config, 3, "").unwrap();
    let file = pollster::block_on(Safetensors::open(Arc::new(bytes))).unwrap();
    let file = from_safetensors(&file, &config, None).unwrap();
    pollster::block_on(Reference::load(config, &file)).unwrap()
}

fn plain() -> LoadOptions {
    LoadOptions { plain: true, ..Default::default() }
}

fn close(found: &[f32], expected: &[f32]) {
    // In f32 only the order of sums differs.
    assert!(nmse(found, expected) < 1e-9, "NMSE {:e}", nmse(found, expected));
}

#[test]
fn texts_are_embedded_as_the_reference_does() {
    let mut embedder = embedder(files(), &plain());
    let options = TextOptions { prefix: "a ".into(), ..Default::default() };
    let texts = ["the cat sits.", "DOG running on the abc", ""];
    let tokens: [&[u32]; 3] = [&[2, 11, 4, 5, 7, 8, 14, 3], &[2, 11, 6, 9, 10, 15, 4, 1, 3], &[2, 11, 3]];
    let found = pollster::block_on(embedder.embed(&texts, &options)).unwrap();
    for (found, tokens) in found.iter().zip(tokens) {
        close(found, &reference().embed(tokens, Pooling::Mean, true).unwrap());
    }
    let mut stream = embedder.stream(&texts, &options);
    let mut seen = Vec::new();
    while let Some(item) = pollster::block_on(stream.next()) {
        let item = item.unwrap();
        assert_eq!((item.tokens, item.truncated), (tokens[item.index].len(), false));
        seen.push(item.index);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}

/// The plan has 40 rows of 16 bytes, behind which its texts begin at a multiple of 256.
#[test]
fn rows_may_end_where_no_binding_begins() {
    let mut embedder = embedder(files(), &plain());
    let texts = [(0..38).map(|i| i * 3 % 120).collect::<Vec<u32>>()];
    let found = pollster::block_on(embedder.stream_tokens(&texts).next()).unwrap().unwrap();
    close(&found.vector, &reference().embed(&texts[0], Pooling::Mean, true).unwrap());
    assert_eq!(embedder.plans[0].ports.texts.offset(), 768);
}

#[test]
fn gguf_gives_the_same_vectors() {
    let texts = ["the cat sits.", "Dog runs zzz [SEP] on a", "a ℝ"];
    let [a, b] = [files(), gguf_files()].map(|files| {
        let mut embedder = embedder(files, &plain());
        pollster::block_on(embedder.embed(&texts, &TextOptions::default())).unwrap()
    });
    assert_eq!(a, b);
}

#[test]
fn long_texts_are_cut_or_split() {
    let mut embedder = embedder(files(), &LoadOptions { max_tokens: Some(6), ..plain() });
    let text = ["the cat sits on a dog."]; // 4 5 7 8 | 15 11 6 14
    let mut run = |long| {
        let options = TextOptions { long, ..Default::default() };
        let mut stream = embedder.stream(&text, &options);
        let item = pollster::block_on(stream.next()).unwrap().unwrap();
        assert!(pollster::block_on(stream.next()).is_none());
        item
    };
    let reference = reference();
    let parts = [&[2, 4, 5, 7, 8, 3][..], &[2, 15, 11, 6, 14, 3]];
    let [first, second] = parts.map(|tokens| reference.embed(tokens, Pooling::Mean, true).unwrap());
    let cut = run(Long::Truncate);
    assert_eq!((cut.tokens, cut.truncated), (6, true));
    close(&cut.vector, &first);
    let split = run(Long::Split);
    assert_eq!((split.tokens, split.truncated), (12, false));
    let sum: Vec<f32> = first.iter().zip(&second).map(|(a, b)| a + b).collect();
    let length = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
    close(&split.vector, &sum.iter().map(|v| v / length).collect::<Vec<_>>());
}

#[test]
fn many_texts_of_many_lengths_come_back_in_order() {
    let options = LoadOptions { batch_tokens: 200, ..Default::default() };
    let mut embedder = embedder(files(), &options);
    let texts: Vec<Vec<u32>> =
        (0..120).map(|i| (0..1 + i * 7 % 60).map(|j| (i * j + j) as u32 % 120).collect()).collect();
    let reference = reference();
    let mut found = vec![Vec::new(); texts.len()];
    let mut stream = embedder.stream_tokens(&texts);
    while let Some(item) = pollster::block_on(stream.next()) {
        let item = item.unwrap();
        assert!(std::mem::replace(&mut found[item.index], item.vector).is_empty(), "text {} twice", item.index);
    }
    drop(stream);
    for i in (0..120).step_by(13) {
        let expected = reference.embed(&texts[i], Pooling::Mean, true).unwrap();
        // f16 tiles round to 2^-12.
        assert!(nmse(&found[i], &expected) < 2e-5, "text {i}: NMSE {:e}", nmse(&found[i], &expected));
    }
    assert!(embedder.plans.len() <= KEPT_PLANS);
    // Dropping a stream cancels it, and the embedder goes on.
    let mut stream = embedder.stream_tokens(&texts);
    assert!(pollster::block_on(stream.next()).unwrap().is_ok());
    drop(stream);
    let again = pollster::block_on(embedder.stream_tokens(&texts[5..6]).next()).unwrap().unwrap();
    // Another size of tiles adds up in another order, and what is rounded to f16 between may fall on the other side.
    assert!(nmse(&again.vector, &found[5]) < 2e-5);
}

#[test]
fn what_does_not_fit_is_said() {
    let context = pollster::block_on(async {
        Context::open(&Adapter::request(&Default::default()).await.unwrap(), None).await.unwrap()
    });
    let load = |files, options: LoadOptions| {
        pollster::block_on(Embedder::load(&context, files, &options, |_| {})).map(|_| ()).unwrap_err()
    };
    let error = load(files(), LoadOptions { max_tokens: Some(81), ..Default::default() });
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Shape, "81 tokens of a text: expected 3 to 80"));
    let error = load(ModelFiles { config: None, ..files() }, LoadOptions::default());
    assert!(error.kind() == ErrorKind::Format && error.to_string().starts_with("config.json: not found"), "{error}");
    let mut embedder = embedder(ModelFiles { tokenizer: None, ..files() }, &LoadOptions::default());
    let error = pollster::block_on(embedder.embed(&["a"], &TextOptions::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tokenizer);
    let error = pollster::block_on(embedder.stream_tokens(&[vec![1], vec![120]]).next()).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "text 1: token 120, expected one below 120");
}

/// What plans take by their cost is what those of all-MiniLM-L6-v2 took on an H100 (attention took a sixth more then), and batches
/// are cut by it.
#[test]
fn batches_are_those_that_were_fastest() {
    let h100 = Profile::by_name("h100").unwrap();
    let matrices = [[1152, 384], [384, 384], [1536, 384], [384, 1536]].repeat(6);
    let time = |rows: usize| cost(&h100, rows, &matrices, 6).unwrap();
    for (texts, ms) in [(44, 0.82), (48, 1.08), (52, 1.11), (56, 1.20), (64, 1.27), (88, 1.58)] {
        let found = time(128 * texts) / time(128 * 64) * 1.27;
        assert!((found / ms - 1.0).abs() < 0.05, "{texts} texts: {found} ms, measured {ms}");
    }
    // Of 100 texts 44 and 56 took 2.37 ms, 36 and 64 2.43, 12 and 88 2.48, 50 and 50 2.62, all at once 2.65.
    assert_eq!(fastest(&[128; 100], 12_288, time), [44, 56]);
    assert_eq!(fastest(&[128; 1000], 12_288, time), [[32].as_slice(), &[88; 11]].concat());
    assert_eq!(fastest(&[128; 10], 12_288, time), [10]);
    assert_eq!(cost(&Profile::by_name("m2-max").unwrap(), 5632, &matrices, 6), None);
}
