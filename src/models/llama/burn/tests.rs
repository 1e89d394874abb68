//! Burn module = reference = plan, on small random models and on the shipped one.

use std::path::Path;
use std::sync::Arc;

use ::burn::tensor::Device;

use super::*;
use crate::dtype::DType;
use crate::error::ErrorKind;
use crate::format::source::MappedFile;
use crate::generate::{Model, SessionOptions};
use crate::kernels::testing::nmse;
use crate::models::burn_kernels::Gpu;
use crate::models::burn_kernels::testing::{gpu, places, values};
use crate::models::llama::Reference;
use crate::models::llama::testing::{RopeForm, TinySpec, tiny_gguf};

fn open(bytes: Vec<u8>) -> Gguf {
    pollster::block_on(Gguf::open(Arc::new(bytes))).unwrap()
}

fn load(gguf: &Gguf, device: &Device, kernels: &Kernels) -> Llama {
    pollster::block_on(Llama::load(gguf, device, kernels)).unwrap()
}

/// Logits after each of some tokens: of a first chunk, of a second one, and of one token at a time.
fn by_module(llama: &Llama, tokens: &[u32]) -> Vec<f32> {
    let mut cache = llama.cache(tokens.len());
    let mut logits = values(llama.forward(&tokens[..11], &mut cache).unwrap());
    logits.extend(values(llama.forward(&tokens[11..20], &mut cache).unwrap()));
    for token in &tokens[20..] {
        logits.extend(values(llama.forward(&[*token], &mut cache).unwrap()));
    }
    logits
}

fn by_plan(gpu: &Gpu, bytes: Vec<u8>, tokens: &[u32]) -> Vec<f32> {
    pollster::block_on(async {
        let model = Model::load(&gpu.context, Arc::new(bytes), |_| {}).await?;
        let mut session = model.session(SessionOptions { plain: true, ..Default::default() })?;
        session.forward_all(0, tokens).await
    })
    .unwrap()
}

#[test]
fn modules_equal_the_reference_and_the_plan_everywhere() {
    let gpu = gpu();
    let specs = [
        TinySpec::default(),
        TinySpec { dtype: DType::Q4_K, tied: true, n_kv_heads: 1, rope: RopeForm::Yarn, seed: 2, ..Default::default() },
        TinySpec { dtype: DType::Q8_0, bias: true, rope: RopeForm::Factors, rope_dim: Some(48), ..Default::default() },
        TinySpec { dtype: DType::F16, n_heads: 8, n_kv_heads: 8, head_dim: 24, ..Default::default() },
    ];
    let tokens: Vec<u32> = (0..23).map(|i| (i * i * 7 + 3 * i + 5) % 320).collect();
    let mut failed = Vec::new();
    for spec in specs {
        let bytes = tiny_gguf(&spec).unwrap();
        let gguf = open(bytes.clone());
        let mut reference = pollster::block_on(Reference::load(&gguf)).unwrap();
        let exact = reference.forward(&tokens).unwrap();
        let mut compare = |name: &str, found: &[f32], limit: f64| {
            let error = nmse(found, &exact);
            if error.is_nan() || error > limit || found.len() != exact.len() {
                failed.push(format!("{name}, {} {:?}: NMSE {error:.2e}, at most {limit:.0e}", spec.dtype, spec.rope));
            }
        };
        // A cache in f16 rounds keys and values: 2^-11 of each, and less of their sums.
        compare("plan", &by_plan(&gpu, bytes, &tokens), 1e-6);
        for place in places(&gpu) {
            let limit = match (&place.kernels, place.rounds) {
                // In f32 the order of sums differs, and the sine of an angle by its last bit.
                (Kernels::Burn, _) => 1e-9,
                (Kernels::Own(_), false) => 1e-6,
                // Operands of products in f16, too.
                (Kernels::Own(_), true) => 1e-4,
            };
            compare(place.name, &by_module(&load(&gguf, &place.device, &place.kernels), &tokens), limit);
        }
    }
    gpu.context.check().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_shipped_model_writes_what_the_reference_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/models/anygpu-rust-6m-f16.gguf");
    let gguf = pollster::block_on(Gguf::open(Arc::new(MappedFile::open(path).unwrap()))).unwrap();
    let mut reference = pollster::block_on(Reference::load(&gguf)).unwrap();
    let prompt = [1, 40, 300, 77, 5, 900, 31, 8];
    let expected = reference.generate_greedy(&prompt, 6).unwrap();
    let gpu = gpu();
    for place in places(&gpu) {
        let llama = load(&gguf, &place.device, &place.kernels);
        let mut cache = llama.cache(64);
        let mut logits = values(llama.forward(&prompt, &mut cache).unwrap());
        let mut found = Vec::new();
        while found.len() < expected.len() {
            let last = &logits[logits.len() - llama.config().vocab_size..];
            let best = last.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32;
            found.push(best);
            logits = values(llama.forward(&[best], &mut cache).unwrap());
        }
        assert_eq!(found, expected, "{}", place.name);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let gguf = open(tiny_gguf(&TinySpec::default()).unwrap());
    let llama = load(&gguf, &Device::flex(), &Kernels::Burn);
    let mut cache = llama.cache(64);
    for (tokens, expected) in
        [(&[][..], "0 tokens"), (&[320], "token 320"), (&[1; 65], "65 tokens: expected 1 to 64 more")]
    {
        let error = llama.forward(tokens, &mut cache).unwrap_err();
        assert!(error.to_string().contains(expected) && error.kind() == ErrorKind::Shape, "{error}");
    }
    let gpu = gpu();
    let mut other = load(&gguf, &gpu.device, &gpu.kernels()).cache(64);
    let error = llama.forward(&[1], &mut other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
