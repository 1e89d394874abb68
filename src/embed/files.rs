//! [`ModelFiles`]: what a model consists of, as it lies in a folder of sentence-transformers or in one GGUF file.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::{ByteSource, Gguf, Safetensors};
use crate::models::bert::file::{from_gguf, from_safetensors};
use crate::models::bert::{Config, Pooling};
use crate::models::weights::TensorFile;
use crate::tokenizer::Tokenizer;

/// The files of a model. Only weights are needed everywhere; safetensors need `config` and, for texts, `tokenizer` too.
#[derive(Clone)]
pub struct ModelFiles {
    /// `model.safetensors`, or a GGUF file.
    pub weights: Arc<dyn ByteSource>,
    /// `config.json`.
    pub config: Option<Vec<u8>>,
    /// `tokenizer.json`.
    pub tokenizer: Option<Vec<u8>>,
    /// `modules.json`: whether vectors get length 1.
    pub modules: Option<Vec<u8>>,
    /// `1_Pooling/config.json`: how rows become a vector.
    pub pooling: Option<Vec<u8>>,
    /// `sentence_bert_config.json`: where texts are cut.
    pub sentence: Option<Vec<u8>>,
    /// `config_sentence_transformers.json`: what goes in front of texts.
    pub prompts: Option<Vec<u8>>,
}

/// What the files say beside weights.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settings {
    pub pooling: Option<Pooling>,
    pub normalize: Option<bool>,
    pub max_tokens: Option<usize>,
    pub prompts: BTreeMap<String, String>,
}

/// The files, read.
pub(super) struct Read {
    pub config: Config,
    pub tensors: TensorFile,
    pub tokenizer: Option<Tokenizer>,
    pub settings: Settings,
}

impl ModelFiles {
    /// A model of one file, such as GGUF.
    pub fn single(weights: Arc<dyn ByteSource>) -> Self {
        Self { weights, config: None, tokenizer: None, modules: None, pooling: None, sentence: None, prompts: None }
    }

    /// The files of a folder that has `model.safetensors`, or a file of its own.
    ///
    /// # Errors
    /// `Io`, naming the file, where one that is needed is missing.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        use crate::format::source::MappedFile;
        let path = path.as_ref();
        if !path.is_dir() {
            return Ok(Self::single(Arc::new(MappedFile::open(path)?)));
        }
        let read = |name: &str| match std::fs::read(path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::from(error).context(path.join(name).display())),
        };
        let weights = Arc::new(MappedFile::open(path.join("model.safetensors"))?);
        Ok(Self {
            config: read("config.json")?,
            tokenizer: read("tokenizer.json")?,
            modules: read("modules.json")?,
            pooling: read("1_Pooling/config.json")?,
            sentence: read("sentence_bert_config.json")?,
            prompts: read("config_sentence_transformers.json")?,
            ..Self::single(weights)
        })
    }

    pub(super) async fn read(self, dtype: Option<DType>) -> Result<Read> {
        let start = self.weights.read(0, self.weights.len().min(4) as usize).await?;
        if start.as_ref() == b"GGUF" {
            drop(start);
            return self.read_gguf(dtype).await;
        }
        drop(start);
        let config = self
            .config
            .as_deref()
            .ok_or_else(|| Error::format("config.json: not found, expected it beside weights that are not GGUF"))?;
        let config = Config::from_json(config)?;
        let file = Safetensors::open(self.weights.clone()).await?;
        let tensors = from_safetensors(&file, &config, dtype)?;
        let tokenizer = self.tokenizer.as_deref().map(Tokenizer::from_json).transpose()?;
        let settings = self.settings()?;
        Ok(Read { config, tensors, tokenizer, settings })
    }

    async fn read_gguf(self, dtype: Option<DType>) -> Result<Read> {
        let gguf = Gguf::open(self.weights.clone()).await?;
        let shape = |name: &str| gguf.tensor(name).map(|tensor| tensor.shape.clone());
        let (config, pooling) = Config::from_metadata(gguf.metadata(), shape)?;
        let tensors = from_gguf(&gguf, &config, dtype)?;
        let tokenizer = match (&self.tokenizer, gguf.metadata().str("tokenizer.ggml.model")?) {
            (Some(json), _) => Some(Tokenizer::from_json(json)?),
            (None, None | Some("no_vocab" | "none")) => None,
            (None, Some(_)) => Some(Tokenizer::from_gguf(gguf.metadata())?),
        };
        let max_tokens = gguf.metadata().u64("bert.context_length")?;
        let max_tokens = max_tokens.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
        // What lies beside the file outranks it.
        let beside = self.settings()?;
        let settings =
            Settings { pooling: beside.pooling.or(pooling), max_tokens: beside.max_tokens.or(max_tokens), ..beside };
        Ok(Read { config, tensors, tokenizer, settings })
    }

    fn settings(&self) -> Result<Settings> {
        #[derive(Deserialize)]
        struct Module {
            r#type: String,
        }
        #[derive(Deserialize)]
        struct Sentence {
            max_seq_length: Option<usize>,
        }
        #[derive(Deserialize, Default)]
        struct Prompts {
            prompts: Option<BTreeMap<String, String>>,
        }
        let mut normalize = None;
        if let Some(modules) = parse::<Vec<Module>>("modules.json", self.modules.as_deref())? {
            for Module { r#type } in &modules {
                let kind = r#type.rsplit('.').next().unwrap_or_default();
                if !["Transformer", "Pooling", "Normalize"].contains(&kind) {
                    return Err(Error::unsupported(format!(
                        "modules.json: found {type}, expected Transformer, Pooling and Normalize"
                    )));
                }
            }
            normalize = Some(modules.iter().any(|module| module.r#type.ends_with("Normalize")));
        }
        let sentence = parse::<Sentence>("sentence_bert_config.json", self.sentence.as_deref())?;
        let prompts = parse::<Prompts>("config_sentence_transformers.json", self.prompts.as_deref())?;
        let pooling = parse::<BTreeMap<String, Value>>("1_Pooling/config.json", self.pooling.as_deref())?;
        Ok(Settings {
            pooling: pooling.map(|modes| pooling_of(&modes)).transpose()?,
            normalize,
            max_tokens: sentence.and_then(|sentence| sentence.max_seq_length),
            prompts: prompts.and_then(|prompts| prompts.prompts).unwrap_or_default(),
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(name: &str, bytes: Option<&'a [u8]>) -> Result<Option<T>> {
    let parse = |bytes| serde_json::from_slice(bytes).map_err(|error| Error::format(format!("{name}: {error}")));
    bytes.map(parse).transpose()
}

/// One mode that is on, or named by `pooling_mode`.
fn pooling_of(modes: &BTreeMap<String, Value>) -> Result<Pooling> {
    let named = modes.get("pooling_mode").and_then(Value::as_str);
    let on = modes.iter().filter(|(name, value)| name.starts_with("pooling_mode_") && **value == Value::Bool(true));
    let found: Vec<&str> = named.into_iter().chain(on.map(|(name, _)| name.as_str())).collect();
    match found[..] {
        ["mean" | "pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "pooling_mode_cls_token"] => Ok(Pooling::Cls),
        ["lasttoken" | "pooling_mode_lasttoken"] => Ok(Pooling::LastToken),
        _ => Err(Error::unsupported(format!(
            "1_Pooling/config.json: found {}, expected one of mean, cls and lasttoken",
            if found.is_empty() { "no mode".to_owned() } else { found.join(" and ") }
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> ModelFiles {
        ModelFiles::single(Arc::new(Vec::new()))
    }

    #[test]
    fn settings_are_those_of_sentence_transformers() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let found = ModelFiles {
            modules: text(r#"[{"type":"sentence_transformers.models.Transformer"},{"type":"x.Normalize"}]"#),
            pooling: text(
                r#"{"word_embedding_dimension":8,"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#,
            ),
            sentence: text(r#"{"max_seq_length":256,"do_lower_case":false}"#),
            prompts: text(r#"{"prompts":{"query":"query: "},"default_prompt_name":null}"#),
            ..files()
        };
        let prompts = BTreeMap::from([("query".to_owned(), "query: ".to_owned())]);
        let expected = Settings { pooling: Some(Pooling::Cls), normalize: Some(true), max_tokens: Some(256), prompts };
        assert_eq!(found.settings().unwrap(), expected);
        assert_eq!(files().settings().unwrap(), Settings::default());
        for (pooling, modules, expected) in [
            (r#"{"pooling_mode_max_tokens":true}"#, "[]", "found pooling_mode_max_tokens"),
            (r#"{"pooling_mode_max_tokens":false}"#, "[]", "found no mode"),
            (r#"{"pooling_mode":"mean"}"#, r#"[{"type":"m.Dense"}]"#, "found m.Dense"),
            ("[]", "[]", "1_Pooling/config.json: invalid type"),
        ] {
            let found = ModelFiles { pooling: text(pooling), modules: text(modules), ..files() }.settings();
            let error = found.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }
}
