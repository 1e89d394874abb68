mod hostile;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::ErrorKind;
use crate::format::Value;
use crate::format::source::BoxFuture;

fn open(bytes: Vec<u8>) -> Result<Gguf> {
    pollster::block_on(Gguf::open(Arc::new(bytes)))
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn metadata() -> Metadata {
    Metadata::from_iter([
        ("general.architecture", text("llama")),
        ("llama.block_count", Value::Uint(2)),
        ("large", Value::Uint(u64::MAX)),
        ("negative", Value::Int(-3)),
        ("very negative", Value::Int(i64::MIN)),
        ("epsilon", Value::Float32(1e-5)),
        ("wide", Value::Float64(0.1)),
        ("yes", Value::Bool(true)),
        ("tokens", Value::Strings(vec!["<s>".into(), String::new(), "é🦀".into()])),
        ("types", Value::Ints(vec![1, -1, 6])),
        ("wide ints", Value::Ints(vec![i64::MAX, i64::MIN])),
        ("scores", Value::Floats(vec![0.5, -1.5])),
        ("windows", Value::Bools(vec![true, false])),
        ("nested", Value::Array(vec![Value::Ints(vec![7]), Value::Strings(vec!["x".into()])])),
        ("none", Value::Array(vec![])),
    ])
}

fn tensors() -> Vec<TensorInfo> {
    vec![
        TensorInfo::new("token_embd.weight", DType::Q4_0, [3, 64]).unwrap(),
        TensorInfo::new("b", DType::F16, [2, 3, 5]).unwrap(),
        TensorInfo::new("a", DType::F32, [1]).unwrap(),
    ]
}

/// A file with [`metadata`] and [`tensors`], each tensor's bytes its index plus one.
fn sample() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &metadata(), tensors()).unwrap();
    for (index, tensor) in tensors().iter().enumerate() {
        for piece in vec![index as u8 + 1; tensor.bytes as usize].chunks(50) {
            writer.write(&tensor.name, piece).unwrap();
        }
    }
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read() {
    let gguf = open(sample()).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.metadata(), &metadata());
    assert_eq!(gguf.tensors().len(), 3);
    for (index, expected) in tensors().into_iter().enumerate() {
        let found = gguf.tensor(&expected.name).unwrap();
        assert_eq!(found, &gguf.tensors()[index]);
        assert_eq!(found, &TensorInfo { offset: found.offset, ..expected });
        assert!(found.offset.is_multiple_of(32), "{found:?}");
        let bytes = pollster::block_on(gguf.source().read(found.offset, found.bytes as usize)).unwrap();
        assert!(bytes.iter().all(|&byte| byte == index as u8 + 1), "{found:?}");
    }
    assert!(gguf.tensor("c").is_none());
}

#[test]
fn alignment_is_followed() {
    for alignment in [8, 64, 4096] {
        let mut metadata = metadata();
        metadata.insert("general.alignment", Value::Uint(alignment));
        let mut writer = Writer::new(Vec::new(), &metadata, tensors()).unwrap();
        for tensor in tensors() {
            writer.write(&tensor.name, &vec![0; tensor.bytes as usize]).unwrap();
        }
        let gguf = open(writer.finish().unwrap()).unwrap();
        assert!(gguf.tensors().iter().all(|tensor| tensor.offset.is_multiple_of(alignment)), "{alignment}");
    }
}

#[test]
fn the_writer_refuses_wrong_use() {
    let two = || vec![TensorInfo::new("x", DType::F32, [2]).unwrap(), TensorInfo::new("y", DType::F32, [1]).unwrap()];
    let none = Metadata::default();
    let twice = vec![two()[0].clone(), two()[0].clone()];
    let mixed = Metadata::from_iter([("k", Value::Array(vec![Value::Bool(true)]))]);
    let deep = Metadata::from_iter([("k", (0..9).fold(Value::Ints(vec![]), |v, _| Value::Array(vec![v])))]);
    let unaligned = Metadata::from_iter([("general.alignment", Value::Uint(24))]);
    for (case, metadata, tensors) in [
        ("twice", &none, twice),
        ("mixed", &mixed, two()),
        ("deep", &deep, two()),
        ("unaligned", &unaligned, two()),
        ("huge", &none, ["x", "y"].map(|name| TensorInfo::new(name, DType::F32, [1 << 61]).unwrap()).to_vec()),
    ] {
        assert!(Writer::new(Vec::new(), metadata, tensors).is_err(), "{case}");
    }
    let writer = || Writer::new(Vec::new(), &none, two()).unwrap();
    assert!(writer().write("y", &[0; 4]).is_err(), "out of order");
    assert!(writer().write("x", &[0; 9]).is_err(), "too long");
    assert!(writer().finish().is_err(), "unfinished");
    let mut complete = writer();
    complete.write("x", &[0; 8]).unwrap();
    complete.write("y", &[0; 4]).unwrap();
    assert!(complete.write("y", &[0; 4]).is_err(), "complete");
}

#[test]
fn shapes_are_checked() {
    for (dtype, shape) in [
        (DType::F32, vec![]),
        (DType::F32, vec![1; 5]),
        (DType::F32, vec![4, 0]),
        (DType::Q4_0, vec![32, 16]),
        (DType::Q6_K, vec![128]),
        (DType::F32, vec![1 << 32, 1 << 32]),
        (DType::F32, vec![1 << 62]),
    ] {
        assert!(TensorInfo::new("x", dtype, shape.clone()).is_err_and(|e| e.kind() == ErrorKind::Shape), "{shape:?}");
    }
    assert!(TensorInfo::new("", DType::F32, [1]).is_err());
    assert!(TensorInfo::new("n".repeat(257), DType::F32, [1]).is_err());
}

/// Writes headers field by field, so that every lie can be told.
#[derive(Clone, Default)]
struct Header(Vec<u8>);

impl Header {
    fn new(version: u32, tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(entries)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn string(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }

    /// A tensor's entry; `shape` innermost first, as in the file.
    fn tensor(self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        let with_shape = shape.iter().fold(self.string(name).u32(shape.len() as u32), |h, &n| h.u64(n));
        with_shape.u32(kind).u64(offset)
    }

    fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32), 0);
        self
    }

    /// A header with one metadata entry `k`, whose type and value are to follow.
    fn entry() -> Self {
        Self::new(3, 0, 1).string("k")
    }

    /// A header with one 1-d tensor `x` of `n` elements at `offset`, followed by 64 bytes of data.
    fn one(n: u64, kind: u32, offset: u64) -> Self {
        Self::new(3, 1, 0).tensor("x", &[n], kind, offset).pad().bytes(&[0; 64])
    }
}

#[test]
fn version_2_and_all_types_are_read() {
    let header = Header::new(2, 0, 13);
    let mut header = header.string("u8").u32(0).bytes(&[200]).string("i8").u32(1).bytes(&[200]);
    header = header.string("u16").u32(2).bytes(&[1, 2]).string("i16").u32(3).bytes(&[255, 255]);
    header = header.string("u32").u32(4).u32(7).string("i32").u32(5).u32(u32::MAX);
    header = header.string("f32").u32(6).bytes(&1.5f32.to_le_bytes()).string("bool").u32(7).bytes(&[0]);
    header = header.string("string").u32(8).string("ab").string("u64").u32(10).u64(u64::MAX);
    header = header.string("i64").u32(11).u64(u64::MAX).string("f64").u32(12).bytes(&2.5f64.to_le_bytes());
    header = header.string("u16s").u32(9).u32(2).u64(2).bytes(&[1, 0, 255, 255]);
    let gguf = open(header.0).unwrap();
    assert_eq!(gguf.version(), 2);
    for (key, expected) in [
        ("u8", Value::Uint(200)),
        ("i8", Value::Int(-56)),
        ("u16", Value::Uint(513)),
        ("i16", Value::Int(-1)),
        ("u32", Value::Uint(7)),
        ("i32", Value::Int(-1)),
        ("f32", Value::Float32(1.5)),
        ("bool", Value::Bool(false)),
        ("string", text("ab")),
        ("u64", Value::Uint(u64::MAX)),
        ("i64", Value::Int(-1)),
        ("f64", Value::Float64(2.5)),
        ("u16s", Value::Ints(vec![1, 65535])),
    ] {
        assert_eq!(gguf.metadata().get(key), Some(&expected), "{key}");
    }
}

#[test]
fn the_smallest_files_are_read() {
    assert!(open(Header::new(3, 0, 0).0).unwrap().tensors().is_empty());
    let gguf = open(Header::one(16, 0, 0).0).unwrap();
    assert_eq!(gguf.tensor("x").map(|x| (x.offset, x.bytes)), Some((64, 64)));
}

#[test]
fn lies_are_errors_that_name_the_field() {
    let long = "n".repeat(300);
    let two = |a: u64, b: u64| {
        let header = Header::new(3, 2, 0).tensor("x", &[16], 0, a).tensor("y", &[16], 0, b);
        header.pad().bytes(&[0; 256]).0
    };
    let twice = Header::new(3, 2, 0).tensor("x", &[8], 0, 0).tensor("x", &[8], 0, 32).pad().bytes(&[0; 64]);
    let keys = Header::new(3, 0, 2).string("k").u32(7).bytes(&[1]).string("k").u32(7).bytes(&[1]);
    let aligned = |v: u32| Header::new(3, 0, 1).string("general.alignment").u32(4).u32(v).0;
    let nested = (0..3).fold(Header::entry().u32(9), |h, _| h.u32(9).u64(1)).u32(9).u64(0);
    let (format, unsupported) = (ErrorKind::Format, ErrorKind::Unsupported);
    let cases: Vec<(&str, Vec<u8>, ErrorKind, &[&str])> = vec![
        ("empty", vec![], format, &["magic", "empty"]),
        ("magic", b"GGUX\0\0\0\0".to_vec(), format, &["magic", "GGUX"]),
        ("safetensors", b"\x40\x01\0\0\0\0\0\0{\"a\":".to_vec(), format, &["safetensors"]),
        ("zip", b"PK\x03\x04\0\0\0\0\0\0".to_vec(), format, &["zip"]),
        ("ggml", b"tjgg\x03\0\0\0\0\0".to_vec(), format, &["before GGUF"]),
        ("lfs", b"version https://git-lfs".to_vec(), format, &["LFS"]),
        ("version 1", Header::new(1, 0, 0).0, unsupported, &["version 1"]),
        ("version 4", Header::new(4, 0, 0).0, unsupported, &["version 4"]),
        ("big-endian", Header::new(3 << 24, 0, 0).0, unsupported, &["big-endian"]),
        ("many tensors", Header::new(3, 1 << 60, 0).0, format, &["tensor_count", "1152921504606846976"]),
        ("many entries", Header::new(3, 0, u64::MAX).0, format, &["metadata_kv_count"]),
        ("a few too many entries", Header::new(3, 0, 2).bytes(&[0; 20]).0, format, &["metadata_kv_count 2"]),
        ("key length", Header::new(3, 0, 1).u64(1 << 40).bytes(&[0; 64]).0, format, &["metadata key 0", "65535"]),
        ("no key", Header::new(3, 0, 1).u64(0).bytes(&[0; 64]).0, format, &["metadata key 0"]),
        ("key past the end", Header::new(3, 0, 1).u64(60).bytes(&[97; 20]).0, format, &["metadata key 0", "60"]),
        ("key not UTF-8", Header::new(3, 0, 1).u64(1).bytes(&[255; 20]).0, format, &["metadata key 0", "UTF-8"]),
        ("twice a key", keys.0, format, &["metadata k", "twice"]),
        ("type of value", Header::entry().u32(13).u64(0).0, format, &["metadata k", "13"]),
        ("boolean", Header::entry().u32(7).bytes(&[2]).0, format, &["metadata k", "boolean"]),
        ("string", Header::entry().u32(8).u64(1 << 50).0, format, &["metadata k", "string"]),
        ("array", Header::entry().u32(9).u32(4).u64(1 << 62).0, format, &["metadata k", "array"]),
        ("array of strings", Header::entry().u32(9).u32(8).u64(2).u64(1).u64(0).0, format, &["metadata k", "element"]),
        ("nested arrays", nested.0, unsupported, &["metadata k", "nested"]),
        ("alignment 0", aligned(0), format, &["general.alignment"]),
        ("alignment 48", aligned(48), format, &["general.alignment", "48"]),
        ("alignment 2^31", aligned(1 << 31), format, &["general.alignment"]),
        (
            "alignment text",
            Header::new(3, 0, 1).string("general.alignment").u32(8).string("x").0,
            format,
            &["general.alignment", "a string"],
        ),
        (
            "split",
            Header::new(3, 0, 1).string("split.count").u32(2).bytes(&[2, 0]).0,
            unsupported,
            &["split.count", "2"],
        ),
        ("name length", Header::new(3, 1, 0).tensor(&long, &[1], 0, 0).0, format, &["tensor 0", "300"]),
        ("dimensions", Header::new(3, 1, 0).tensor("x", &[1; 5], 0, 0).0, format, &["tensor x", "n_dimensions 5"]),
        (
            "no dimensions",
            Header::new(3, 1, 0).tensor("x", &[], 0, 0).bytes(&[0; 32]).0,
            format,
            &["tensor x", "n_dimensions 0"],
        ),
        ("dimension 0", Header::one(0, 0, 0).0, format, &["tensor x", "[0]"]),
        ("overflow", Header::new(3, 1, 0).tensor("x", &[1 << 33, 1 << 33], 0, 0).0, format, &["tensor x", "2^64"]),
        ("overflow in bytes", Header::one(1 << 62, 0, 0).0, format, &["tensor x", "2^64"]),
        ("part of a block", Header::one(48, 8, 0).0, format, &["tensor x", "48", "q8_0"]),
        ("Q2_K", Header::one(256, 10, 0).0, unsupported, &["tensor x", "Q2_K"]),
        ("type 99", Header::one(256, 99, 0).0, unsupported, &["tensor x", "99"]),
        ("unaligned", Header::one(1, 0, 4).0, format, &["tensor x", "offset 4"]),
        ("past the end", Header::one(17, 0, 0).0, format, &["tensor x", "68 bytes", "128"]),
        ("offset past the end", Header::one(16, 0, 32).0, format, &["tensor x", "offset 32"]),
        ("offset overflow", Header::one(16, 0, u64::MAX - 31).0, format, &["tensor x"]),
        ("twice a name", twice.0, format, &["tensor x", "twice"]),
        ("same place", two(0, 0), format, &["x and y overlap"]),
        ("overlap", two(64, 32), format, &["y and x overlap"]),
    ];
    for (case, bytes, kind, words) in cases {
        let error = open(bytes).expect_err(case);
        let message = error.to_string();
        assert_eq!(error.kind(), kind, "{case}: {message}");
        for word in words {
            assert!(message.contains(word), "{case}: {message:?} names no {word:?}");
        }
    }
    assert!(open(two(0, 64)).is_ok());
    assert!(open(two(64, 0)).is_ok());
}

#[test]
fn every_truncation_is_an_error() {
    let whole = sample();
    // The last tensor is 4 bytes, then padded to 32.
    let needed = whole.len() - 28;
    for len in 0..whole.len() {
        let result = open(whole[..len].to_vec());
        assert_eq!(result.is_ok(), len >= needed, "{len} of {} bytes: {result:?}", whole.len());
    }
}

/// A source that counts what is read, and gives no more than it is asked for.
struct CountingSource {
    bytes: Vec<u8>,
    read: AtomicU64,
    longest: AtomicU64,
}

impl ByteSource for CountingSource {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Cow<'_, [u8]>>> {
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        self.longest.fetch_max(len as u64, Ordering::Relaxed);
        let range = offset as usize..offset as usize + len;
        Box::pin(std::future::ready(Ok(Cow::Owned(self.bytes[range].to_vec()))))
    }
}

#[test]
fn a_large_header_is_read_in_few_bytes_and_the_data_not_at_all() {
    let tokens: Vec<String> = (0..100_000).map(|i| format!("token {i}")).collect();
    let metadata = Metadata::from_iter([
        ("a", Value::Ints((0..50_000).collect())),
        ("tokenizer.ggml.tokens", Value::Strings(tokens)),
        ("z", Value::String("z".repeat(300_000))),
    ]);
    let data = vec![1; 32 << 20];
    let tensor = TensorInfo::new("x", DType::F32, [data.len() as u64 / 4]).unwrap();
    let mut writer = Writer::new(Vec::new(), &metadata, vec![tensor]).unwrap();
    let header = writer.tensors()[0].offset;
    writer.write("x", &data).unwrap();
    let bytes = writer.finish().unwrap();
    let source = Arc::new(CountingSource { bytes, read: AtomicU64::new(0), longest: AtomicU64::new(0) });
    let gguf = pollster::block_on(Gguf::open(source.clone())).unwrap();
    assert_eq!(gguf.metadata(), &metadata);
    // Windows double, so an item is read at most twice over in all, plus one chunk ahead.
    let read = source.read.load(Ordering::Relaxed);
    assert!(read <= 3 * header + (4 << 20), "{read} bytes read of a header of {header}");
}

#[test]
fn a_claim_of_2_to_the_60_entries_allocates_nothing() {
    for claims in [1u64 << 60, 1 << 56, 1 << 40] {
        for kind in 0..=12 {
            let mut file = Header::entry().u32(9).u32(kind).u64(claims);
            file.0.resize(64, 0);
            let source =
                Arc::new(CountingSource { bytes: file.0, read: AtomicU64::new(0), longest: AtomicU64::new(0) });
            let error = pollster::block_on(Gguf::open(source.clone())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "{claims} of type {kind}: {error}");
            assert!(source.longest.load(Ordering::Relaxed) <= 64);
        }
    }
}

#[test]
fn a_file_of_the_gguf_package_is_read() {
    let gguf = open(include_bytes!("../../testdata/gguf/package.gguf").to_vec()).unwrap();
    for (key, expected) in [
        ("general.architecture", text("llama")),
        ("llama.block_count", Value::Uint(1)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float32(1e-5)),
        ("large", Value::Uint(1 << 63)),
        ("negative", Value::Int(-5)),
        ("yes", Value::Bool(true)),
        ("wide", Value::Float64(0.1)),
        ("tokenizer.ggml.tokens", Value::Strings(["<unk>", "<s>", "</s>", "▁the", "é"].map(String::from).to_vec())),
        ("tokenizer.ggml.scores", Value::Floats(vec![0.0, -1.0, -2.0, -3.5, 0.25])),
        ("tokenizer.ggml.token_type", Value::Ints(vec![2, 3, 3, 1, 1])),
        ("windows", Value::Bools(vec![true, false])),
        ("nested", Value::Array(vec![Value::Ints(vec![1, 2]), Value::Ints(vec![3])])),
    ] {
        assert_eq!(gguf.metadata().get(key), Some(&expected), "{key}");
    }
    for (name, dtype) in [("f32", DType::F32), ("f16", DType::F16), ("q8_0", DType::Q8_0)] {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!((tensor.dtype, tensor.shape.as_slice()), (dtype, [2, 64].as_slice()), "{name}");
        let bytes = pollster::block_on(gguf.source().read(tensor.offset, tensor.bytes as usize)).unwrap();
        let mut values = [0.0; 128];
        crate::quant::dequantize(dtype, &bytes, &mut values).unwrap();
        for (i, value) in values.iter().enumerate() {
            // Half a step of q8_0 of the largest value, 8; the other formats hold these values exactly.
            let bound = if dtype == DType::Q8_0 { 8.0 / 254.0 * 1.1 } else { 0.0 };
            assert!((value - (i as f32 - 64.0) / 8.0).abs() <= bound, "{name}, value {i}: {value}");
        }
    }
}
