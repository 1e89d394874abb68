//! The reference against transformers: small random models and their logits, made by `testdata/logits/make.py`.

use std::path::Path;
use std::sync::Arc;

use crate::chat::{Message, Role};
use crate::format::gguf::Gguf;
use crate::format::source::MappedFile;
use crate::generate::{GenerateOptions, Metrics, Model, SessionOptions};
use crate::gpu::{Adapter, Context};
use crate::kernels::testing::nmse;
use crate::models::llama::Reference;

#[derive(serde::Deserialize)]
struct Case {
    file: String,
    logits: String,
    tokens: Vec<u32>,
    description: String,
}

/// The shape and values of a `.npy` file of little-endian f32 in row-major order.
fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00", "{}", path.display());
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = bytes[10..].split_at(header_bytes);
    let header = std::str::from_utf8(header).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape = shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect();
    (shape, data.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// The stored cases and their folder.
fn cases() -> (std::path::PathBuf, Vec<Case>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testdata/logits");
    let index = std::fs::read(folder.join("index.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&index).unwrap();
    assert!(cases.len() >= 9, "only {} cases", cases.len());
    (folder, cases)
}

#[test]
fn plans_give_the_logits_of_transformers() {
    let (folder, cases) = cases();
    let adapter = pollster::block_on(Adapter::request(&Default::default())).unwrap();
    let context = pollster::block_on(Context::open(&adapter, None)).unwrap();
    for Case { file, logits, tokens, description } in cases {
        let source = Arc::new(MappedFile::open(folder.join(&file)).unwrap());
        let model = pollster::block_on(Model::load(&context, source, |_| {})).unwrap();
        let (_, expected) = read_npy(&folder.join(logits));
        let mut session = model.session(SessionOptions { plain: true, ..Default::default() }).unwrap();
        let found = pollster::block_on(session.forward_all(0, &tokens)).unwrap();
        let error = nmse(&found, &expected);
        // The cache rounds keys and values to f16: 2^-11 of each, and less of their sums.
        assert!(error < 1e-6, "{file} ({description}): NMSE {error:.2e}, expected less than 1e-6");
    }
}

#[test]
fn the_shipped_model_writes_what_the_reference_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/models/anygpu-rust-6m-f16.gguf");
    let source = Arc::new(MappedFile::open(path).unwrap());
    let adapter = pollster::block_on(Adapter::request(&Default::default())).unwrap();
    let context = pollster::block_on(Context::open(&adapter, None)).unwrap();
    let model = pollster::block_on(Model::load(&context, source.clone(), |_| {})).unwrap();
    let question = [Message::new(Role::User, "What is ownership?")];
    let prompt = model.chat_template().unwrap().encode(model.tokenizer().unwrap(), &question, true).unwrap();
    let mut reference = pollster::block_on(async { Reference::load(&Gguf::open(source).await?).await })
        .unwrap()
        .round_cache_to_f16(true);
    let expected = reference.generate_greedy(&prompt, 32).unwrap();
    let mut session = model.session(SessionOptions { context_length: 256, ..Default::default() }).unwrap();
    let mut metrics = Metrics::default();
    let options = GenerateOptions { max_tokens: 32, ..Default::default() };
    let mut stream = session.generate(&prompt, options, &mut metrics);
    let mut found = Vec::new();
    while let Some(token) = pollster::block_on(stream.next()) {
        found.push(token.unwrap());
    }
    assert_eq!(found, expected);
    let text = model.tokenizer().unwrap().decode(&found, true).unwrap();
    assert!(text.contains("Ownership is"), "{text}");
}

#[test]
fn logits_are_those_of_transformers() {
    let (folder, cases) = cases();
    let mut failed = Vec::new();
    for Case { file, logits, tokens, description } in cases {
        let source = Arc::new(MappedFile::open(folder.join(&file)).unwrap());
        let mut model = pollster::block_on(async { Reference::load(&Gguf::open(source).await?).await }).unwrap();
        let (shape, expected) = read_npy(&folder.join(logits));
        assert_eq!(shape, [tokens.len(), model.config().vocab_size], "{file}");
        let found = model.forward(&tokens).unwrap();
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = expected.iter().map(|v| v.abs()).fold(0.0, f32::max);
        // transformers computes in f32, this in f64: a few dozen roundings of 2^-24 each, found to be up to 1.7e-6.
        if worst > 5e-6 * largest {
            failed.push(format!("{file} ({description}): off by {worst:e}, the largest logit is {largest}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
