//! Plan = reference on small random encoders, of every format, packing and pooling.

use std::sync::Arc;

use super::file::{from_gguf, from_safetensors};
use super::plan::{Bert, Phase};
use super::testing::{tiny_config, tiny_gguf, tiny_json, tiny_safetensors};
use super::*;
use crate::dtype::DType;
use crate::error::ErrorKind;
use crate::format::{Gguf, Safetensors};
use crate::gpu::{Adapter, Context};
use crate::kernels::packed::pack;
use crate::kernels::testing::nmse;
use crate::models::weights::TensorFile;
use crate::plan::Builder;
use crate::profile::Profile;
use crate::tensor::Storage;

fn context(clip: Option<&str>) -> Context {
    pollster::block_on(async {
        let adapter = Adapter::request(&Default::default()).await.unwrap();
        let clip = clip.map(|name| Profile::by_name(name).unwrap());
        Context::open(&adapter, clip.as_ref()).await.unwrap()
    })
}

pub(super) fn texts() -> Vec<Vec<u32>> {
    let text = |seed: u32, length: u32| (0..length).map(|i| (seed + i * i * 7 + 3 * i) % 120).collect();
    vec![text(1, 5), text(2, 1), text(3, 66), text(50, 2), text(4, 17), text(1, 5)]
}

/// The vectors of texts by a plan of some more rows and texts than are in use.
pub(super) fn by_plan(
    context: &Context,
    config: &Config,
    file: Arc<TensorFile>,
    pooling: Pooling,
    normalize: bool,
) -> Vec<f32> {
    let bert = pollster::block_on(Bert::load(context, config.clone(), file, &mut |_| {})).unwrap();
    let mut builder = Builder::new(context);
    let texts = texts();
    let (rows, count) = (128, texts.len() + 3);
    let phase = Phase { rows, texts: count, pooling, normalize, f16: true };
    let ports = bert.write(&mut builder, context, phase).unwrap();
    let plan = builder.finish().unwrap();
    let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let mut places = Vec::new();
    let mut start = 0;
    for text in &texts {
        places.extend([start, text.len() as u32]);
        start += text.len() as u32;
    }
    for (tensor, words) in [(&ports.rows, pack(&slices, rows).unwrap()), (&ports.texts, places)] {
        let Storage::Buffer(buffer) = tensor.storage() else { panic!("a port is a buffer") };
        context.write(buffer, tensor.offset(), bytemuck::cast_slice(&words));
    }
    plan.replay(0);
    let vectors = ports.vectors.slice(0, texts.len()).unwrap();
    bytemuck::pod_collect_to_vec(&pollster::block_on(plan.read(&vectors)).unwrap())
}

fn by_reference(config: &Config, file: &TensorFile, pooling: Pooling, normalize: bool) -> Vec<f32> {
    let reference = pollster::block_on(Reference::load(config.clone(), file)).unwrap();
    texts().iter().flat_map(|text| reference.embed(text, pooling, normalize).unwrap()).collect()
}

pub(super) fn open_safetensors(prefix: &str, dtype: Option<DType>) -> (Config, Arc<TensorFile>) {
    let config = tiny_config();
    let bytes = tiny_safetensors(&config, 7, prefix).unwrap();
    let file = pollster::block_on(Safetensors::open(Arc::new(bytes))).unwrap();
    let read = Config::from_json(&tiny_json(&config)).unwrap();
    assert_eq!(read, config);
    (config, Arc::new(from_safetensors(&file, &read, dtype).unwrap()))
}

#[test]
fn plans_equal_the_reference() {
    for clip in [None, Some("webgpu-baseline")] {
        let context = context(clip);
        // Operands rounded to f16 are off by 2^-12, which a few layers with cancellation make some 1e-3 of a value; in f32
        // only the order of sums differs.
        let limit = if context.profile().features.f16 { 2e-5 } else { 1e-9 };
        for dtype in [None, Some(DType::F16), Some(DType::Q8_0)] {
            let (config, file) = open_safetensors("", dtype);
            let found = by_plan(&context, &config, file.clone(), Pooling::Mean, true);
            let error = nmse(&found, &by_reference(&config, &file, Pooling::Mean, true));
            assert!(error < limit, "{clip:?} {dtype:?}: NMSE {error:.2e}, expected below {limit:.0e}");
        }
    }
}

#[test]
fn every_pooling_equals_the_reference() {
    let context = context(None);
    let (config, file) = open_safetensors("bert.", None);
    for (pooling, normalize) in [(Pooling::Mean, false), (Pooling::Cls, true), (Pooling::LastToken, false)] {
        let found = by_plan(&context, &config, file.clone(), pooling, normalize);
        let error = nmse(&found, &by_reference(&config, &file, pooling, normalize));
        assert!(error < 2e-5, "{pooling:?}: NMSE {error:.2e}");
    }
}

#[test]
fn gguf_and_safetensors_hold_the_same_model() {
    let (config, file) = open_safetensors("", None);
    let expected = by_reference(&config, &file, Pooling::Mean, true);
    let bytes = tiny_gguf(&config, 7, DType::F32, Vec::new()).unwrap();
    let gguf = pollster::block_on(Gguf::open(Arc::new(bytes))).unwrap();
    let shape = |name: &str| gguf.tensor(name).map(|tensor| tensor.shape.clone());
    let (read, pooling) = Config::from_metadata(gguf.metadata(), shape).unwrap();
    assert_eq!((&read, pooling), (&config, None));
    let file = from_gguf(&gguf, &read, None).unwrap();
    assert_eq!(by_reference(&config, &file, Pooling::Mean, true), expected);
}

#[test]
fn texts_do_not_see_each_other() {
    let (config, file) = open_safetensors("", None);
    let vectors = by_plan(&context(None), &config, file, Pooling::Mean, true);
    let (first, last) = (&vectors[..config.d_model], &vectors[5 * config.d_model..]);
    // The same text, in other rows of other tiles.
    assert!(nmse(first, last) < 1e-9, "{:e}", nmse(first, last));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let config = tiny_config();
    let bytes = tiny_safetensors(&config, 7, "").unwrap();
    let file = pollster::block_on(Safetensors::open(Arc::new(bytes))).unwrap();
    let open = |config: &Config, dtype| from_safetensors(&file, config, dtype).map(|_| ()).unwrap_err();
    let error = open(&Config { d_ff: 104, ..config.clone() }, None);
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert!(
        error.to_string().contains("intermediate.dense.weight: found shape [96, 64], expected [104, 64]"),
        "{error}"
    );
    let error = open(&Config { n_layers: 3, ..config.clone() }, None);
    assert!(error.to_string().contains("encoder.layer.2.attention.self.query.weight: not found"), "{error}");
    let error = open(&config, Some(DType::Q4_K));
    assert!(error.kind() == ErrorKind::Shape && error.to_string().contains("token_embd.weight"), "{error}");
}
