//! The bodies of the fuzz targets of `xtask/fuzz`, here so that the ordinary tests run them too, over the committed
//! corpus. Each takes any bytes and panics where a property does not hold; no part of the public interface.
//!
//! With cargo-fuzz, new inputs going to a folder of their own:
//! `mkdir -p target/new; cargo +nightly fuzz run gguf --fuzz-dir xtask/fuzz target/new xtask/fuzz/corpus/gguf`.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::chat::{ChatTemplate, Message, Role};
use crate::dtype::DType;
use crate::error::{ErrorKind, Result};
use crate::format::gguf::{Gguf, Writer};
use crate::format::{Metadata, Value};
use crate::quant;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Bytes as a GGUF file: an error, or a file whose tensors can be read and which, written again, reads as the same.
pub fn gguf(data: &[u8]) {
    let Ok(first) = open(data.to_vec()) else { return };
    let written = write(&first);
    let second = open(written.clone()).expect("a file that this crate wrote is read");
    assert_eq!(first.tensors().len(), second.tensors().len());
    for (a, b) in first.tensors().iter().zip(second.tensors()) {
        assert_eq!((&a.name, a.dtype, &a.shape, a.bytes), (&b.name, b.dtype, &b.shape, b.bytes));
        assert_eq!(first.tensor(&a.name), Some(a));
        assert_eq!(bytes(&first, &a.name), bytes(&second, &a.name));
    }
    // Metadata with a NaN does not equal itself, so it is compared as written.
    assert!(written == write(&second), "written twice, not the same");
}

/// A byte that chooses a format, then blocks of it; then the same bytes as floats. What is finite is quantised, and comes
/// back near to what it was, or is refused as too large.
pub fn quant(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let dtype = DType::WEIGHTS[choice as usize % DType::WEIGHTS.len()];
    let blocks = data.len() / dtype.block_bytes();
    let mut values = vec![0.0; blocks * dtype.block_len()];
    quant::dequantize(dtype, &data[..blocks * dtype.block_bytes()], &mut values).expect("whole blocks");
    requantize(dtype, &values);

    let (floats, _) = data.as_chunks();
    let whole = floats.len() / dtype.block_len() * dtype.block_len();
    let floats: Vec<f32> = floats[..whole].iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    requantize(dtype, &floats);
}

fn requantize(dtype: DType, values: &[f32]) {
    let mut bytes = Vec::new();
    let result = quant::quantize(dtype, values, &mut bytes);
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        let error = result.expect_err("a value that is not finite");
        assert!(error.to_string().contains(&format!("value {index} ")), "{error}");
        return;
    }
    if let Err(error) = result {
        // Every format takes what half precision can hold.
        assert_eq!(error.kind(), ErrorKind::Shape);
        assert!(values.iter().any(|value| value.abs() > 65_504.0), "{dtype}: {error}");
        return;
    }
    let mut back = vec![f32::NAN; values.len()];
    quant::dequantize(dtype, &bytes, &mut back).expect("as many blocks as were written");
    let len = dtype.block_len();
    for (x, y) in values.chunks(len).zip(back.chunks(len)) {
        // Both lie within the block's range, widened to hold 0; scales in half precision's subnormals add up to 127
        // steps of 2^-25.
        let largest = x.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        for (x, y) in x.iter().zip(y) {
            assert!((x - y).abs() <= 2.0 * largest * 1.01 + 1e-5, "{dtype}: {x:e} came back as {y:e}");
        }
    }
}

/// Fields apart by zero bytes: options (the model's and pre-tokenizer's choice and flags, a byte each), tokens led by a
/// digit for their type, an empty field, merges, an empty field, texts. Whatever tokenizer comes of it encodes the texts to
/// ids of its vocabulary, and decodes ids one by one to what it decodes them to at once.
pub fn tokenizer(data: &[u8]) {
    let mut fields = data.split(|&byte| byte == 0).map(|field| String::from_utf8_lossy(field).into_owned());
    let options = fields.next().unwrap_or_default().into_bytes();
    let option = |index: usize| options.get(index).copied().unwrap_or_default();
    let (mut tokens, mut kinds) = (Vec::new(), Vec::new());
    for field in fields.by_ref().take_while(|field| !field.is_empty()) {
        let digit = field.chars().next().filter(char::is_ascii_digit);
        kinds.push(digit.map_or(1, |digit| i64::from(digit as u8 - b'0')));
        tokens.push(if digit.is_some() { field[1..].to_owned() } else { field });
    }
    let merges: Vec<String> = fields.by_ref().take_while(|field| !field.is_empty()).collect();
    let texts: Vec<String> = fields.collect();

    let model = if option(0).is_multiple_of(2) { "llama" } else { "gpt2" };
    let pre = ["llama-bpe", "smollm", "qwen2", "gpt-2", "default"][option(1) as usize % 5];
    let mut metadata = Metadata::from_iter([
        ("tokenizer.ggml.model", Value::String(model.into())),
        ("tokenizer.ggml.pre", Value::String(pre.into())),
        ("tokenizer.ggml.scores", Value::Floats((0..tokens.len()).map(|i| -(i as f32)).collect())),
        ("tokenizer.ggml.merges", Value::Strings(merges)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(option(2) & 1 == 0)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(option(2) & 2 == 0)),
    ]);
    let count = tokens.len();
    metadata.insert("tokenizer.ggml.tokens", Value::Strings(tokens));
    if option(2) & 4 == 0 {
        metadata.insert("tokenizer.ggml.token_type", Value::Ints(kinds));
    }
    if option(2) & 8 == 0 {
        metadata.insert("tokenizer.ggml.bos_token_id", Value::Uint(u64::from(option(3))));
    }
    let Ok(tokenizer) = Tokenizer::from_gguf(&metadata) else { return };
    assert_eq!(tokenizer.vocab_size(), count);
    // Ids that no text leads to, and some outside the vocabulary.
    decode(&tokenizer, &data.iter().map(|&byte| u32::from(byte) % (count as u32 + 1)).collect::<Vec<_>>());
    for text in &texts {
        for (add_special, parse_special) in [(false, false), (true, true)] {
            let Ok(ids) = tokenizer.encode(text, EncodeOptions { add_special, parse_special }) else { continue };
            assert!(ids.iter().all(|&id| (id as usize) < count), "{ids:?} of a vocabulary of {count}");
            decode(&tokenizer, &ids);
        }
    }
    let messages = [Message::new(Role::User, texts.first().cloned().unwrap_or_default())];
    let template = ChatTemplate::from_gguf(&metadata, &tokenizer).expect("the template for files without one");
    let _ = template.encode(&tokenizer, &messages, true);
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) {
    let whole = tokenizer.decode(ids, true);
    let in_vocabulary = ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size());
    assert_eq!(whole.is_ok(), in_vocabulary, "{ids:?}: {whole:?}");
    let Ok(whole) = whole else { return };
    let mut decoder = tokenizer.decoder();
    let mut streamed: String = ids.iter().map(|&id| decoder.push(id).expect("an id of the vocabulary")).collect();
    streamed += &decoder.finish();
    assert_eq!(streamed, whole, "{ids:?} streamed and at once");
}

/// A chat template, then messages led by a letter for their role, apart by zero bytes.
pub fn chat_template(data: &[u8]) {
    let mut fields = data.split(|&byte| byte == 0).map(|field| String::from_utf8_lossy(field).into_owned());
    let source = fields.next().unwrap_or_default();
    let Ok(template) = ChatTemplate::new(&source, "<s>", "</s>") else { return };
    let roles = [('s', Role::System), ('u', Role::User), ('a', Role::Assistant), ('t', Role::Tool)];
    let messages: Vec<Message> = fields
        .map(|field| match roles.iter().find(|(letter, _)| field.starts_with(*letter)) {
            Some((_, role)) => Message::new(*role, &field[1..]),
            None => Message::new(Role::User, field),
        })
        .collect();
    let template = template.with_time(1_700_000_000);
    for add_generation_prompt in [false, true] {
        let first = template.render(&messages, add_generation_prompt);
        assert_eq!(first, template.render(&messages, add_generation_prompt), "rendered twice");
    }
}

fn open(bytes: Vec<u8>) -> Result<Gguf> {
    now(Gguf::open(Arc::new(bytes)))
}

fn bytes(gguf: &Gguf, name: &str) -> Vec<u8> {
    let tensor = gguf.tensor(name).expect("a name of the list");
    now(gguf.source().read(tensor.offset, tensor.bytes as usize)).expect("a tensor inside the file").into_owned()
}

fn write(gguf: &Gguf) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), gguf.metadata(), gguf.tensors().to_vec()).expect("what was read");
    for tensor in gguf.tensors() {
        writer.write(&tensor.name, &bytes(gguf, &tensor.name)).expect("the list's order");
    }
    writer.finish().expect("all tensors written")
}

/// The output of a future over bytes in memory, which never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("memory is always ready"),
    }
}
