//! The numbers of a BERT encoder: read from `config.json` or from GGUF's metadata, and checked.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::format::Metadata;

/// Numbers past these are taken for a broken file.
const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 4096;
const MAX_WIDTH: usize = 1 << 16;
const MAX_VOCABULARY: usize = 1 << 22;
const MAX_POSITIONS: usize = 1 << 20;
const MAX_TYPES: usize = 1 << 10;

/// The attention kernel keeps a head in registers and workgroup memory.
const MAX_HEAD_DIM: usize = 256;

/// How the rows of a text become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The first row: that of `[CLS]`.
    Cls,
    /// The last row.
    LastToken,
}

/// An encoder's sizes and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream and of vectors.
    pub d_model: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of the feed-forward block.
    pub d_ff: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Positions there are embeddings for.
    pub max_positions: usize,
    /// Kinds of segments there are embeddings for; texts are all of kind 0.
    pub n_types: usize,
    /// Added to the variance in layer norms.
    pub eps: f32,
}

/// `config.json` as far as it matters here.
#[derive(Deserialize)]
struct Json {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
}

impl Config {
    /// Reads a `config.json` of `model_type` `bert`.
    ///
    /// # Errors
    /// `Format` for a file that does not read or numbers out of range; `Unsupported`, by name, for another model, another
    /// activation than GELU, relative positions and decoders.
    ///
    /// ```
    /// let json = br#"{ "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    ///     "intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512, "hidden_act": "gelu" }"#;
    /// let config = anygpu::models::bert::Config::from_json(json)?;
    /// assert_eq!((config.n_layers, config.head_dim(), config.n_types), (6, 32, 2));
    /// # Ok::<(), anygpu::Error>(())
    /// ```
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let json: Json =
            serde_json::from_slice(bytes).map_err(|error| Error::format(format!("config.json: {error}")))?;
        let only = |key: &str, found: &str, expected: &str| {
            if found == expected {
                return Ok(());
            }
            Err(Error::unsupported(format!("config.json {key}: found {found:?}, expected {expected:?}")))
        };
        only("model_type", &json.model_type, "bert")?;
        only("hidden_act", json.hidden_act.as_deref().unwrap_or("gelu"), "gelu")?;
        only("position_embedding_type", json.position_embedding_type.as_deref().unwrap_or("absolute"), "absolute")?;
        if json.is_decoder == Some(true) {
            return Err(Error::unsupported("config.json is_decoder: found true, expected an encoder"));
        }
        Self {
            n_layers: json.num_hidden_layers,
            d_model: json.hidden_size,
            n_heads: json.num_attention_heads,
            d_ff: json.intermediate_size,
            vocab_size: json.vocab_size,
            max_positions: json.max_position_embeddings,
            n_types: json.type_vocab_size.unwrap_or(2),
            eps: json.layer_norm_eps.unwrap_or(1e-12),
        }
        .checked("config.json")
    }

    /// Reads `general.architecture = bert` and its `bert.*` keys, and how GGUF says that rows are pooled. `shape` looks a
    /// tensor's shape up by name, outermost first: the vocabulary's size and the number of types are stated by them alone.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_metadata(
        metadata: &Metadata,
        shape: impl Fn(&str) -> Option<Vec<u64>>,
    ) -> Result<(Self, Option<Pooling>)> {
        let architecture = metadata.required("general.architecture", Metadata::str)?;
        if architecture != "bert" {
            return Err(Error::unsupported(format!(
                "metadata general.architecture: found {architecture:?}, expected \"bert\""
            )));
        }
        let size = |key: &str| -> Result<usize> {
            let value = metadata.required(&format!("bert.{key}"), Metadata::u64)?;
            Ok(usize::try_from(value).unwrap_or(usize::MAX))
        };
        if metadata.bool("bert.attention.causal")? == Some(true) {
            return Err(Error::unsupported("metadata bert.attention.causal: found true, expected an encoder"));
        }
        let rows = |name: &str| match shape(name).as_deref() {
            Some(&[rows, _]) => Ok(usize::try_from(rows).unwrap_or(usize::MAX)),
            // GGUF drops the outer dimension where it is one.
            Some(&[_]) => Ok(1),
            found => Err(Error::format(format!("tensor {name}: found {found:?}, expected two dimensions"))),
        };
        let eps = metadata.f32("bert.attention.layer_norm_epsilon")?;
        let pooling = match metadata.u64("bert.pooling_type")? {
            None | Some(0) => None,
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::Cls),
            Some(3) => Some(Pooling::LastToken),
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "metadata bert.pooling_type: found {other}, expected 0 (none), 1 (mean), 2 (cls) or 3 (last)"
                )));
            }
        };
        let config = Self {
            n_layers: size("block_count")?,
            d_model: size("embedding_length")?,
            n_heads: size("attention.head_count")?,
            d_ff: size("feed_forward_length")?,
            vocab_size: rows("token_embd.weight")?,
            max_positions: rows("position_embd.weight")?,
            n_types: rows("token_types.weight")?,
            eps: eps.ok_or_else(|| {
                Error::format("metadata bert.attention.layer_norm_epsilon: not found, expected a value")
            })?,
        };
        Ok((config.checked("metadata bert")?, pooling))
    }

    fn checked(self, file: &str) -> Result<Self> {
        for (name, found, most) in [
            ("layers", self.n_layers, MAX_LAYERS),
            ("width", self.d_model, MAX_WIDTH),
            ("attention heads", self.n_heads, MAX_HEADS),
            ("feed-forward width", self.d_ff, MAX_WIDTH),
            ("vocabulary", self.vocab_size, MAX_VOCABULARY),
            ("positions", self.max_positions, MAX_POSITIONS),
            ("token types", self.n_types, MAX_TYPES),
        ] {
            if found == 0 || found > most {
                return Err(Error::format(format!("{file}: {name} {found}, expected 1 to {most}")));
            }
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            let (width, heads) = (self.d_model, self.n_heads);
            return Err(Error::format(format!("{file}: width {width}, expected a multiple of the {heads} heads")));
        }
        if self.head_dim() > MAX_HEAD_DIM || !self.head_dim().is_multiple_of(8) || !self.d_ff.is_multiple_of(8) {
            return Err(Error::unsupported(format!(
                "{file}: heads of {} and a feed-forward width of {}, expected multiples of 8, heads up to {MAX_HEAD_DIM}",
                self.head_dim(),
                self.d_ff
            )));
        }
        if !(self.eps > 0.0 && self.eps < 1.0) {
            return Err(Error::format(format!("{file}: epsilon {}, expected between 0 and 1", self.eps)));
        }
        Ok(self)
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Every tensor of the model by GGUF's name, with its shape, outermost first.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, ff) = (self.d_model, self.d_ff);
        let mut tensors = vec![
            ("token_embd.weight".to_owned(), vec![self.vocab_size, d]),
            ("position_embd.weight".to_owned(), vec![self.max_positions, d]),
            ("token_types.weight".to_owned(), vec![self.n_types, d]),
            ("token_embd_norm.weight".to_owned(), vec![d]),
            ("token_embd_norm.bias".to_owned(), vec![d]),
        ];
        for layer in 0..self.n_layers {
            for (part, rows, cols) in [
                ("attn_q", d, d),
                ("attn_k", d, d),
                ("attn_v", d, d),
                ("attn_output", d, d),
                ("ffn_up", ff, d),
                ("ffn_down", d, ff),
            ] {
                tensors.push((format!("blk.{layer}.{part}.weight"), vec![rows, cols]));
                tensors.push((format!("blk.{layer}.{part}.bias"), vec![rows]));
            }
            for part in ["attn_output_norm", "layer_output_norm"] {
                tensors.push((format!("blk.{layer}.{part}.weight"), vec![d]));
                tensors.push((format!("blk.{layer}.{part}.bias"), vec![d]));
            }
        }
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::format::Value;

    const JSON: &str = r#"{ "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "type_vocab_size": 2 }"#;

    #[test]
    fn json_and_metadata_say_the_same() {
        let json = Config::from_json(JSON.as_bytes()).unwrap();
        let metadata = Metadata::from_iter([
            ("general.architecture", Value::String("bert".into())),
            ("bert.block_count", Value::Uint(6)),
            ("bert.embedding_length", Value::Uint(384)),
            ("bert.attention.head_count", Value::Uint(12)),
            ("bert.feed_forward_length", Value::Uint(1536)),
            ("bert.attention.layer_norm_epsilon", Value::Float32(1e-12)),
            ("bert.pooling_type", Value::Uint(2)),
        ]);
        let tensors = json.tensors();
        let shape = |name: &str| {
            let (_, shape) = tensors.iter().find(|(tensor, _)| tensor == name)?;
            Some(shape.iter().map(|&size| size as u64).collect())
        };
        assert_eq!(Config::from_metadata(&metadata, shape).unwrap(), (json, Some(Pooling::Cls)));
    }

    #[test]
    fn what_is_not_here_is_refused_by_name() {
        for (from, to, kind, expected) in [
            ("\"bert\"", "\"roberta\"", ErrorKind::Unsupported, "model_type: found \"roberta\""),
            ("\"gelu\"", "\"relu\"", ErrorKind::Unsupported, "hidden_act: found \"relu\""),
            ("384", "0", ErrorKind::Format, "width 0"),
            ("12,", "7,", ErrorKind::Format, "width 384, expected a multiple of the 7 heads"),
            ("12,", "96,", ErrorKind::Unsupported, "heads of 4"),
            ("30522", "-1", ErrorKind::Format, "config.json: invalid value"),
            ("30522", "999999999", ErrorKind::Format, "vocabulary 999999999"),
            ("1e-12", "0", ErrorKind::Format, "epsilon 0"),
        ] {
            let error = Config::from_json(JSON.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(expected), "{error}, expected {expected}");
        }
    }
}
