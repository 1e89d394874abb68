//! Burn module = reference = plan, on small random encoders. On MiniLM: see the tests of [`crate::embed::burn_head`].

use ::burn::tensor::Device;

use super::*;
use crate::dtype::DType;
use crate::error::ErrorKind;
use crate::kernels::testing::nmse;
use crate::models::bert::Reference;
use crate::models::bert::tests::{by_plan, open_safetensors, texts};
use crate::models::burn_kernels::testing::{gpu, places, values};

fn load(config: &Config, file: &TensorFile, device: &Device, kernels: &Kernels) -> Bert {
    pollster::block_on(Bert::load(config.clone(), file, device, kernels)).unwrap()
}

/// The most that vectors may be off the reference's: in f32 the order of sums differs; operands rounded to f16 are off by
/// 2^-12, which a few layers with cancellation make some 1e-3 of a value.
fn limit(rounds: bool) -> f64 {
    if rounds { 2e-5 } else { 1e-9 }
}

#[test]
fn modules_equal_the_reference_and_the_plan_everywhere() {
    let gpu = gpu();
    let texts = texts();
    let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let mut failed = Vec::new();
    for dtype in [None, Some(DType::F16), Some(DType::Q8_0)] {
        let (config, file) = open_safetensors("", dtype);
        let reference = pollster::block_on(Reference::load(config.clone(), &file)).unwrap();
        let modules: Vec<_> = places(&gpu)
            .into_iter()
            .map(|place| (place.name, place.rounds, load(&config, &file, &place.device, &place.kernels)))
            .collect();
        for (pooling, normalize) in
            [(Pooling::Mean, true), (Pooling::Mean, false), (Pooling::Cls, true), (Pooling::LastToken, false)]
        {
            let expected: Vec<f32> =
                texts.iter().flat_map(|text| reference.embed(text, pooling, normalize).unwrap()).collect();
            let mut compare = |name: &str, rounds: bool, found: &[f32]| {
                let error = nmse(found, &expected);
                if error.is_nan() || error > limit(rounds) || found.len() != expected.len() {
                    failed.push(format!("{name} {dtype:?} {pooling:?} {normalize}: NMSE {error:.2e}"));
                }
            };
            for (name, rounds, bert) in &modules {
                compare(name, *rounds, &values(bert.embed(&slices, pooling, normalize).unwrap()));
            }
            let rounds = gpu.launcher.profile().features.f16;
            compare("plan", rounds, &by_plan(&gpu.context, &config, file.clone(), pooling, normalize));
        }
    }
    gpu.context.check().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn texts_of_one_length_need_no_mask() {
    let (config, file) = open_safetensors("", None);
    let gpu = gpu();
    let texts: [&[u32]; 2] = [&[3, 99, 7, 20], &[5, 5, 80, 1]];
    let reference = pollster::block_on(Reference::load(config.clone(), &file)).unwrap();
    let expected: Vec<f32> =
        texts.iter().flat_map(|text| reference.embed(text, Pooling::Mean, true).unwrap()).collect();
    for place in places(&gpu) {
        let bert = load(&config, &file, &place.device, &place.kernels);
        let error = nmse(&values(bert.embed(&texts, Pooling::Mean, true).unwrap()), &expected);
        assert!(error < limit(place.rounds), "{}: NMSE {error:.2e}", place.name);
    }
}

#[test]
fn the_module_on_burns_kernels_can_be_trained() {
    let (config, file) = open_safetensors("", None);
    let device = Device::flex().autodiff();
    let bert = load(&config, &file, &device, &Kernels::Burn);
    let vectors = bert.embed(&[&[1, 2, 3], &[4]], Pooling::Mean, false).unwrap();
    let gradients = vectors.sum().backward();
    let gradient = bert.position_embd.val().grad(&gradients).unwrap();
    let gradient: Vec<f32> = values(gradient);
    let (used, unused) = gradient.split_at(3 * config.d_model);
    assert!(used.iter().any(|v| v.abs() > 1e-6) && unused.iter().all(|v| *v == 0.0));
}

#[test]
fn what_does_not_fit_is_named() {
    let (config, file) = open_safetensors("", None);
    let bert = load(&config, &file, &Device::flex(), &Kernels::Burn);
    let long = vec![1; config.max_positions + 1];
    for (texts, expected) in [
        (&[][..], "no texts"),
        (&[&[1][..], &[]], "text 1: 0 tokens"),
        (&[&long[..]], "text 0: 81 tokens, expected 1 to 80"),
        (&[&[120][..]], "text 0: token 120, expected one below 120"),
    ] {
        let error = bert.embed(texts, Pooling::Mean, true).unwrap_err();
        assert!(error.to_string().contains(expected) && error.kind() == ErrorKind::Shape, "{error}");
    }
    // This crate's kernels on a device that has no WGSL.
    let bert = load(&config, &file, &Device::flex(), &gpu().kernels());
    let error = bert.embed(&[&[1]], Pooling::Mean, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
