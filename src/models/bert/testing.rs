//! Small random encoders as files in memory, for tests. Weights are made meaningful: attention is neither flat nor one-hot,
//! rows differ in scale, and a few weights are outliers.

use std::collections::BTreeMap;

use crate::dtype::DType;
use crate::error::Result;
use crate::format::gguf::{TensorInfo, Writer};
use crate::format::safetensors::{Element, header};
use crate::format::{Metadata, Value};
use crate::models::bert::Config;
use crate::models::bert::file::safetensors_name;
use crate::quant;

/// Two layers of width 64, which every 32-element format divides, with two heads.
pub fn tiny_config() -> Config {
    Config {
        n_layers: 2,
        d_model: 64,
        n_heads: 2,
        d_ff: 96,
        vocab_size: 120,
        max_positions: 80,
        n_types: 2,
        eps: 1e-12,
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }
}

/// The values of every tensor, by GGUF's names.
fn values(config: &Config, seed: u64) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut random = Random(seed);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let cols = shape.last().map_or(1, |&cols| cols);
        let deviation = match name.as_str() {
            "token_embd.weight" => 1.0,
            "position_embd.weight" | "token_types.weight" => 0.3,
            _ if name.ends_with(".bias") => 0.3,
            _ if name.contains("attn_q") || name.contains("attn_k") => 1.3 / (cols as f64).sqrt(),
            _ => 1.0 / (cols as f64).sqrt(),
        };
        let is_norm = name.ends_with("norm.weight");
        let mut values = Vec::new();
        for _ in 0..shape.iter().product::<usize>() / cols {
            let scale = deviation * (0.2 * random.normal()).exp();
            for _ in 0..cols {
                let outlier = if random.uniform() < 0.004 { 5.0 } else { 1.0 };
                let value = if is_norm { 1.0 + 0.15 * random.normal() } else { scale * outlier * random.normal() };
                values.push(value as f32);
            }
        }
        (name, shape, values)
    };
    config.tensors().into_iter().map(tensor).collect()
}

/// A `config.json`.
pub fn tiny_json(config: &Config) -> Vec<u8> {
    let json = serde_json::json!({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff, "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions, "type_vocab_size": config.n_types,
        "layer_norm_eps": config.eps,
    });
    json.to_string().into_bytes()
}

/// A safetensors file of f32 weights, every name behind `prefix`.
///
/// # Errors
/// `Shape` where sizes overflow.
pub fn tiny_safetensors(config: &Config, seed: u64, prefix: &str) -> Result<Vec<u8>> {
    let values = values(config, seed);
    let names: Vec<String> = values.iter().map(|(name, ..)| format!("{prefix}{}", safetensors_name(name))).collect();
    let shape = |shape: &[usize]| shape.iter().map(|&size| size as u64).collect();
    let tensors: Vec<_> =
        names.iter().zip(&values).map(|(name, v)| (name.as_str(), Element::F32, shape(&v.1))).collect();
    let mut file = header(&tensors, &BTreeMap::new())?;
    values.iter().for_each(|(_, _, values)| file.extend(bytemuck::cast_slice::<f32, u8>(values)));
    Ok(file)
}

/// The same weights as a GGUF file, matrices in `dtype`, with further metadata.
///
/// # Errors
/// `Shape` where a width is no whole number of blocks.
pub fn tiny_gguf(config: &Config, seed: u64, dtype: DType, more: Vec<(&str, Value)>) -> Result<Vec<u8>> {
    let uint = |value: usize| Value::Uint(value as u64);
    let mut entries = vec![
        ("general.architecture", Value::String("bert".into())),
        ("bert.block_count", uint(config.n_layers)),
        ("bert.context_length", uint(config.max_positions)),
        ("bert.embedding_length", uint(config.d_model)),
        ("bert.feed_forward_length", uint(config.d_ff)),
        ("bert.attention.head_count", uint(config.n_heads)),
        ("bert.attention.layer_norm_epsilon", Value::Float32(config.eps)),
    ];
    entries.extend(more);
    let values = values(config, seed);
    let mut infos = Vec::new();
    for (name, shape, _) in &values {
        let is_product = shape.len() == 2 && !name.starts_with("position") && !name.starts_with("token_types");
        let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        infos.push(TensorInfo::new(name.clone(), if is_product { dtype } else { DType::F32 }, shape)?);
    }
    let mut writer = Writer::new(Vec::new(), &entries.into_iter().collect::<Metadata>(), infos.clone())?;
    for (info, (name, _, values)) in infos.iter().zip(&values) {
        let mut bytes = Vec::new();
        quant::quantize(info.dtype, values, &mut bytes)?;
        writer.write(name, &bytes)?;
    }
    writer.finish()
}
