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

/// Texts that go through MiniLM on every device.
const FEW: usize = 6;

#[test]
fn minilm_with_a_head_is_the_same_in_burn_and_in_anygpu() {
    let (labels, texts, classes) = sentences();
    let gpu = gpu();
    let read = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let config = Config::from_json(&read("config.json")).unwrap();
    let tokenizer = Tokenizer::from_json(&read("tokenizer.json")).unwrap();
    let encode =
        |text: &String| tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true }).unwrap();
    let tokens: Vec<Vec<u32>> = texts.iter().map(encode).collect();
    let slices: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let source = Arc::new(MappedFile::open(folder().join("model.safetensors")).unwrap());
    let (held_out, kept): (Vec<usize>, Vec<usize>) = (0..texts.len()).partition(|index| index % 5 == 4);
    // On software adapters MiniLM is slow: some texts there, all on the CPU.
    let few = &held_out[..FEW];
    let few_tokens: Vec<&[u32]> = few.iter().map(|&index| slices[index]).collect();
    let few_texts: Vec<&String> = few.iter().map(|&index| &texts[index]).collect();
    let (on_cpu, found, embedded) = pollster::block_on(async {
        let file = from_safetensors(&Safetensors::open(source).await?, &config, None)?;
        let mut found = Vec::new();
        let mut on_cpu = Vec::new();
        for place in places(&gpu) {
            let bert = Bert::load(config.clone(), &file, &place.device, &place.kernels).await?;
            found.push((place.name, values(bert.embed(&few_tokens, Pooling::Mean, true)?)));
            if place.name == "burn-cpu" {
                for batch in slices.chunks(30) {
                    on_cpu.extend(values(bert.embed(batch, Pooling::Mean, true)?));
                }
            }
        }
        let files = ModelFiles::open(folder())?;
        let mut embedder = Embedder::load(&gpu.context, files, &LoadOptions::default(), |_| {}).await?;
        let embedded = embedder.embed(&few_texts, &TextOptions::default()).await?;
        Ok::<_, Error>((on_cpu, found, embedded))
    })
    .unwrap();
    assert_eq!((embedded.len(), on_cpu.len()), (FEW, 384 * texts.len()));
    for (name, vectors) in &found {
        assert_eq!(vectors.len(), 384 * FEW, "{name}");
        for ((vector, expected), text) in vectors.chunks_exact(384).zip(&embedded).zip(&few_texts) {
            let cosine: f32 = vector.iter().zip(expected).map(|(a, b)| a * b).sum();
            // f16 products in the plan, as the tests of the plan itself allow.
            assert!(cosine > 0.9999, "{name}: cosine {cosine} at {text:?}");
        }
    }

    // Trained on the GPU, on vectors of the CPU.
    let of_kept: Vec<f32> = kept.iter().flat_map(|&index| on_cpu[384 * index..][..384].to_vec()).collect();
    let kept_classes: Vec<usize> = kept.iter().map(|&index| classes[index]).collect();
    let vectors = tensor(&of_kept, kept.len(), &gpu.device);
    let head = train(labels.clone(), &vectors, &kept_classes, &TrainOptions::default()).unwrap();
    let read = pollster::block_on(Head::open(Arc::new(head.to_bytes().unwrap()))).unwrap();
    assert_eq!(read, head);
    // What anygpu alone makes of a text, by the plan's vector and the file, is what Burn does. Vectors at a cosine of 0.9999
    // are √0.0002 apart, a score is off by that times its row's length at most, and a softmax by half of that.
    let rows = head.weight.chunks_exact(384).map(|row| row.iter().map(|w| w * w).sum::<f32>().sqrt());
    let limit = 0.5 * 2e-4f32.sqrt() * rows.fold(0.0, f32::max);
    for (name, vectors) in &found {
        for ((vector, ours), text) in vectors.chunks_exact(384).zip(&embedded).zip(&few_texts) {
            assert_eq!(head.classify(vector).unwrap().0, read.classify(ours).unwrap().0, "{name}: {text:?}");
            let (by_burn, by_plan) = (head.probabilities(vector).unwrap(), read.probabilities(ours).unwrap());
            let off = by_burn.iter().zip(&by_plan).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < limit, "{name}, at most {limit}: {by_burn:?}, by the plan {by_plan:?}");
        }
    }
    let is_right = |&&index: &&usize| {
        let vector = &on_cpu[384 * index..][..384];
        read.classify(vector).unwrap().0 == labels[classes[index]]
    };
    let right = held_out.iter().filter(is_right).count();
    // 60 sentences that the head has not seen, of four kinds: chance gets 15 and, once in a million, 32; three of four are a
    // head that has learned what the encoder knows.
    assert!(right >= 45, "{right} of {} right", held_out.len());
}

/// Steps of training lower the loss, and the logits of Burn's own layer are those of the head that is written.
#[test]
fn training_lowers_the_loss_and_the_exported_head_gives_the_same_probabilities() {
    let gpu = gpu();
    let vectors: Vec<f32> = (0..12 * 8).map(|i| ((i * i * 31 + 7 * i) as f32 * 0.37).sin()).collect();
    let classes: Vec<usize> = (0..12).map(|i| (i * 5) % 3).collect();
    let loss = |head: &Head| -> f32 {
        let of = |(vector, &class): (&[f32], &usize)| -head.probabilities(vector).unwrap()[class].ln();
        vectors.chunks_exact(8).zip(&classes).map(of).sum::<f32>() / 12.0
    };
    for device in [&Device::flex(), &gpu.device] {
        let x = tensor(&vectors, 12, device);
        let after = |steps: usize| {
            let options = TrainOptions { steps, ..Default::default() };
            train(labels(3), &x, &classes, &options).unwrap()
        };
        let losses = [0, 3, 10, 40].map(|steps| loss(&after(steps)));
        // At first all classes are alike.
        assert!((losses[0] - 3.0f32.ln()).abs() < 1e-6, "{losses:?}");
        assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");

        let head = after(10);
        let rows = tensor(&head.weight, 3, device);
        let bias = tensor(&head.bias, 1, device);
        let by_burn = values(::burn::tensor::activation::softmax(x.clone().matmul(rows.transpose()) + bias, 1));
        let read = pollster::block_on(Head::open(Arc::new(head.to_bytes().unwrap()))).unwrap();
        let by_file: Vec<f32> =
            vectors.chunks_exact(8).flat_map(|vector| read.probabilities(vector).unwrap()).collect();
        for (burn, file) in by_burn.iter().zip(&by_file) {
            // Sums of eight products in f32 against f64.
            assert!((burn - file).abs() < 1e-5, "{burn} by Burn, {file} by the file");
        }
    }
}
