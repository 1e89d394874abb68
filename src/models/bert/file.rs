//! The encoder's tensors in a safetensors or GGUF file, under one set of names, checked against the configuration.

use super::config::Config;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::format::safetensors::Safetensors;
use crate::models::weights::TensorFile;

/// What stands before the names in files of whole models.
const PREFIXES: [&str; 4] = ["", "bert.", "model.", "0.auto_model."];

/// The name in a safetensors file, without prefix, of one of [`Config::tensors`].
pub(super) fn safetensors_name(name: &str) -> String {
    let layer_norm = |module: String, rest: &str| format!("{module}.LayerNorm.{rest}");
    let Some((layer, part, rest)) = name.strip_prefix("blk.").and_then(|name| {
        let (layer, name) = name.split_once('.')?;
        let (part, rest) = name.split_once('.')?;
        Some((layer, part, rest))
    }) else {
        return match name {
            "token_embd.weight" => "embeddings.word_embeddings.weight".to_owned(),
            "position_embd.weight" => "embeddings.position_embeddings.weight".to_owned(),
            "token_types.weight" => "embeddings.token_type_embeddings.weight".to_owned(),
            _ => layer_norm("embeddings".to_owned(), name.trim_start_matches("token_embd_norm.")),
        };
    };
    let module = |module: &str| format!("encoder.layer.{layer}.{module}");
    match part {
        "attn_q" => module("attention.self.query.") + rest,
        "attn_k" => module("attention.self.key.") + rest,
        "attn_v" => module("attention.self.value.") + rest,
        "attn_output" => module("attention.output.dense.") + rest,
        "ffn_up" => module("intermediate.dense.") + rest,
        "ffn_down" => module("output.dense.") + rest,
        "attn_output_norm" => layer_norm(module("attention.output"), rest),
        _ => layer_norm(module("output"), rest),
    }
}

fn check_shape(name: &str, found: &[u64], expected: &[usize]) -> Result<()> {
    // A table of one row is a vector in some files.
    let found_rows = if found.len() == 1 && expected.len() == 2 { vec![1, found[0]] } else { found.to_vec() };
    if found_rows.iter().map(|&n| n as usize).eq(expected.iter().copied()) {
        return Ok(());
    }
    Err(Error::shape(format!("tensor {name}: found shape {found:?}, expected {expected:?}")))
}

/// The tensors of a safetensors file. `dtype`, where given, is what matrices become at load.
///
/// # Errors
/// `Format` for a missing tensor, `Shape` for one of another shape, `Unsupported` for other elements than F32, F16, BF16.
pub fn from_safetensors(file: &Safetensors, config: &Config, dtype: Option<DType>) -> Result<TensorFile> {
    let embedding = "embeddings.word_embeddings.weight";
    let prefix = PREFIXES.into_iter().find(|prefix| file.tensor(&format!("{prefix}{embedding}")).is_some());
    let prefix = prefix
        .ok_or_else(|| Error::format(format!("tensor {embedding}: not found, expected it in a BERT encoder's file")))?;
    let mut tensors = Vec::new();
    for (name, shape) in config.tensors() {
        let in_file = format!("{prefix}{}", safetensors_name(&name));
        // Checkpoints of 2018 name a norm's parts otherwise.
        let old = in_file.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let found = file.tensor(&in_file).or_else(|| file.tensor(&old)).ok_or_else(|| {
            Error::format(format!("tensor {in_file}: not found, expected it in a BERT encoder's file"))
        })?;
        check_shape(&in_file, &found.shape, &shape)?;
        let element = found.element.dtype().ok_or_else(|| {
            let element = found.element.name();
            Error::unsupported(format!("tensor {in_file}: found {element}, expected F32, F16 or BF16"))
        })?;
        let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        let mut info = TensorInfo::new(name, element, shape)?;
        info.offset = found.offset;
        tensors.push(info);
    }
    TensorFile::new(file.source().clone(), tensors, dtype)
}

/// The tensors of a GGUF file.
///
/// # Errors
/// As [`from_safetensors`].
pub fn from_gguf(file: &Gguf, config: &Config, dtype: Option<DType>) -> Result<TensorFile> {
    let mut tensors = Vec::new();
    for (name, shape) in config.tensors() {
        let found = file
            .tensor(&name)
            .ok_or_else(|| Error::format(format!("tensor {name}: not found, expected it in a BERT encoder's file")))?;
        check_shape(&name, &found.shape, &shape)?;
        tensors.push(found.clone());
    }
    TensorFile::new(file.source().clone(), tensors, dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_transformers() {
        for (name, expected) in [
            ("token_embd_norm.bias", "embeddings.LayerNorm.bias"),
            ("blk.3.attn_v.bias", "encoder.layer.3.attention.self.value.bias"),
            ("blk.11.attn_output.weight", "encoder.layer.11.attention.output.dense.weight"),
            ("blk.0.attn_output_norm.weight", "encoder.layer.0.attention.output.LayerNorm.weight"),
            ("blk.0.ffn_up.weight", "encoder.layer.0.intermediate.dense.weight"),
            ("blk.0.layer_output_norm.bias", "encoder.layer.0.output.LayerNorm.bias"),
        ] {
            assert_eq!(safetensors_name(name), expected);
        }
    }
}
