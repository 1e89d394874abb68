//! Heads trained on made-up vectors, and on sentences through MiniLM: what anygpu makes of an exported head is what Burn does.

use std::path::Path;
use std::sync::Arc;

use ::burn::tensor::Device;

use super::*;
use crate::embed::minilm::folder;
use crate::embed::{Embedder, LoadOptions, ModelFiles, TextOptions};
use crate::format::Safetensors;
use crate::format::source::MappedFile;
use crate::models::bert::burn::Bert;
use crate::models::bert::file::from_safetensors;
use crate::models::bert::{Config, Pooling};
use crate::models::burn_kernels::testing::{gpu, places, values};
use crate::tokenizer::{EncodeOptions, Tokenizer};

fn labels(count: usize) -> Vec<String> {
    (0..count).map(|label| format!("label {label}")).collect()
}

fn tensor(values: &[f32], rows: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [rows, values.len() / rows]), device)
}

#[test]
fn heads_tell_classes_apart_on_every_device() {
    // Three directions that overlap in one dimension.
    let direction = [[1.0f32, 0.2, 0.5, 0.0], [-0.3, 1.0, 0.5, 0.0], [0.1, -1.0, 0.5, 0.3]];
    let vectors: Vec<f32> =
        (0..30).flat_map(|i| direction[i % 3].map(|v| v + 0.1 * ((i * 7919) as f32).sin())).collect();
    let classes: Vec<usize> = (0..30).map(|i| i % 3).collect();
    let gpu = gpu();
    let options = TrainOptions { steps: 60, ..Default::default() };
    let heads = [&Device::flex(), &gpu.device]
        .map(|device| train(labels(3), &tensor(&vectors, 30, device), &classes, &options).unwrap());
    for head in &heads {
        for (vector, class) in vectors.chunks_exact(4).zip(&classes) {
            let (label, probability) = head.classify(vector).unwrap();
            assert_eq!(label, format!("label {class}"));
            assert!(probability > 0.8, "{probability}");
        }
    }
    // The same steps in f32 on two devices.
    let [cpu, gpu] = heads.map(|head| head.probabilities(&[0.3, 0.3, 0.3, 0.3]).unwrap());
    for (cpu, gpu) in cpu.iter().zip(&gpu) {
        assert!((cpu - gpu).abs() < 1e-3, "{cpu} on the CPU, {gpu} on the GPU");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let device = Device::flex();
    let vectors = tensor(&[1.0, 2.0], 2, &device);
    for (classes, expected) in [(&[0][..], "1 classes of 2 vectors"), (&[0, 2], "class 2: expected one below 2")] {
        let error = train(labels(2), &vectors, classes, &Default::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// The sentences, and the numbers of their labels.
fn sentences() -> (Vec<String>, Vec<String>, Vec<usize>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/heads/feedback.tsv");
    let text = std::fs::read_to_string(path).unwrap();
    let (mut labels, mut texts, mut classes) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let (label, text) = line.split_once('\t').unwrap();
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_owned());
        }
        classes.push(labels.iter().position(|known| known == label).unwrap());
        texts.push(text.to_owned());
    }
    (labels, texts, classes)
}

#[test]
fn minilm_with_a_head_is_the_same_in_burn_and_in_anygpu() {
    let (labels, texts, classes) = sentences();
    let gpu = gpu();
    let read = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let config = Config::from_json(&read("config.json")).unwrap();
    let tokenizer = Tokenizer::from_json(&read("tokenizer.json")).unwrap();
    let encode = |text: &String| {
        tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true }).unwrap()
    };
    let tokens: Vec<Vec<u32>> = texts.iter().map(encode).collect();
    let slices: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let source = Arc::new(MappedFile::open(folder().join("model.safetensors")).unwrap());
    let (found, embedded) = pollster::block_on(async {
        let file = from_safetensors(&Safetensors::open(source).await?, &config, None)?;
        let mut found = Vec::new();
        for place in places(&gpu) {
            let bert = Bert::load(config.clone(), &file, &place.device, &place.kernels).await?;
            // All texts on one path, some on the slow ones.
            let count = if place.name == "burn-wgpu+anygpu" { texts.len() } else { 6 };
            found.push((place.name, bert.embed(&slices[..count], Pooling::Mean, true)?));
        }
        let mut embedder =
            Embedder::load(&gpu.context, ModelFiles::open(folder())?, &LoadOptions::default(), |_| {}).await?;
        let embedded = embedder.embed(&texts, &TextOptions::default()).await?;
        crate::Result::Ok((found, embedded))
    })
    .unwrap();
    for (name, vectors) in &found {
        for ((vector, expected), text) in values(vectors.clone()).chunks_exact(384).zip(&embedded).zip(&texts) {
            let cosine: f32 = vector.iter().zip(expected).map(|(a, b)| a * b).sum();
            // f16 products in the plan, as the tests of the plan itself allow.
            assert!(cosine > 0.9999, "{name}: cosine {cosine} at {text:?}");
        }
    }

    let vectors = found.into_iter().find(|(name, _)| *name == "burn-wgpu+anygpu").unwrap().1;
    let (held_out, kept): (Vec<usize>, Vec<usize>) = (0..texts.len()).partition(|index| index % 5 == 4);
    let rows = |chosen: &[usize]| {
        let numbers: Vec<i32> = chosen.iter().map(|&index| index as i32).collect();
        vectors.clone().select(0, Tensor::from_ints(&numbers[..], &gpu.device))
    };
    let of_kept: Vec<usize> = kept.iter().map(|&index| classes[index]).collect();
    let head = train(labels.clone(), &rows(&kept), &of_kept, &TrainOptions::default()).unwrap();
    let head = pollster::block_on(Head::open(Arc::new(head.to_bytes().unwrap()))).unwrap();
    let mut right = 0;
    let by_burn = values(vectors.clone());
    for (index, (vector, ours)) in by_burn.chunks_exact(384).zip(&embedded).enumerate() {
        let (label, _) = head.classify(vector).unwrap();
        assert_eq!(head.classify(ours).unwrap().0, label, "{:?}", texts[index]);
        right += usize::from(held_out.contains(&index) && label == labels[classes[index]]);
    }
    // 60 sentences that the head has not seen, of four kinds.
    assert!(right >= 54, "{right} of {} right", held_out.len());
}
