//! Writing GGUF version 3 as a stream.

use std::io::Write;

use crate::error::{Error, Result};
use crate::format::{Metadata, Value};

use super::types::{MAX_DEPTH, Type};
use super::{MAX_KEY_BYTES, TensorInfo, alignment, sort_names};

const ARCHITECTURE_KEY: &str = "general.architecture";

/// Writes a GGUF version 3 file from front to back: metadata and the list of tensors at once, then the tensors' data in
/// the order of the list, in pieces of any length.
///
/// Integers are written with 32 bits where they fit, else with 64; [`Metadata`] does not keep a file's widths.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    tensors: Vec<TensorInfo>,
    alignment: u64,
    /// The tensor being written, and how many of its bytes have been.
    current: usize,
    written: u64,
    /// Bytes from the file's start.
    position: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header. `general.alignment` in the metadata is followed; 32 without it.
    ///
    /// # Errors
    /// `Format` where a key, the alignment or a tensor's name is not allowed, or a name is there twice; `Io`.
    pub fn new(out: W, metadata: &Metadata, mut tensors: Vec<TensorInfo>) -> Result<Self> {
        let alignment = alignment(metadata)?;
        sort_names(&tensors)?;
        let mut header = Vec::new();
        header.extend_from_slice(b"GGUF");
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&(metadata.iter().count() as u64).to_le_bytes());
        // The architecture comes first, as readers that scan a header like it.
        let first = metadata.get(ARCHITECTURE_KEY).map(|value| (ARCHITECTURE_KEY, value));
        for (key, value) in first.into_iter().chain(metadata.iter().filter(|(key, _)| *key != ARCHITECTURE_KEY)) {
            if key.is_empty() || key.len() as u64 > MAX_KEY_BYTES {
                let found = key.len();
                return Err(Error::format(format!("metadata key of {found} bytes: expected 1 to {MAX_KEY_BYTES}")));
            }
            put_string(&mut header, key);
            put_value(&mut header, value).map_err(|e| e.context(format!("metadata {key}")))?;
        }
        let mut offset = 0u64;
        for tensor in &mut tensors {
            put_string(&mut header, &tensor.name);
            header.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for n in tensor.shape.iter().rev() {
                header.extend_from_slice(&n.to_le_bytes());
            }
            header.extend_from_slice(&tensor.dtype.ggml_id().to_le_bytes());
            header.extend_from_slice(&offset.to_le_bytes());
            tensor.offset = offset;
            offset = offset
                .checked_add(tensor.bytes)
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .ok_or_else(|| Error::format(format!("tensor {}: expected a file below 2^64 bytes", tensor.name)))?;
        }
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        let data = header.len() as u64;
        for tensor in &mut tensors {
            tensor.offset = tensor
                .offset
                .checked_add(data)
                .filter(|start| start.checked_add(tensor.bytes).and_then(|end| end.checked_add(alignment)).is_some())
                .ok_or_else(|| Error::format(format!("tensor {}: expected a file below 2^64 bytes", tensor.name)))?;
        }
        let mut writer = Self { out, tensors, alignment, current: 0, written: 0, position: 0 };
        writer.put(&header, "the header")?;
        Ok(writer)
    }

    /// The tensors, with their places in the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Appends to the data of tensor `name`: the first of the list that is not complete.
    ///
    /// # Errors
    /// `Shape` where another tensor is next, or the bytes are more than the tensor still takes; `Io`.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(tensor) = self.tensors.get(self.current) else {
            return Err(Error::shape(format!("tensor {name}: all tensors are complete, expected no more")));
        };
        if tensor.name != name {
            return Err(Error::shape(format!("tensor {name}: expected the data of {} next", tensor.name)));
        }
        let missing = tensor.bytes - self.written;
        if bytes.len() as u64 > missing {
            let found = bytes.len();
            return Err(Error::shape(format!("tensor {name}: found {found} bytes, expected {missing} or fewer")));
        }
        let padding = tensor.offset.saturating_sub(self.position);
        let complete = bytes.len() as u64 == missing;
        self.pad(padding)?;
        self.put(bytes, name)?;
        self.written += bytes.len() as u64;
        if complete {
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Pads the last tensor, as ggml's own writers do, and flushes; returns what was written to.
    ///
    /// # Errors
    /// `Shape` where a tensor is not complete; `Io`.
    pub fn finish(mut self) -> Result<W> {
        if let Some(tensor) = self.tensors.get(self.current) {
            let (written, bytes) = (self.written, tensor.bytes);
            return Err(Error::shape(format!("tensor {}: {written} bytes written, expected {bytes}", tensor.name)));
        }
        if let Some(last) = self.tensors.last() {
            // Both ends are below 2^64: `new` checked.
            let end = last.offset + last.bytes;
            self.pad(end.next_multiple_of(self.alignment) - end)?;
        }
        self.out.flush().map_err(|e| Error::from(e).context("flushing a GGUF file"))?;
        Ok(self.out)
    }

    fn pad(&mut self, mut bytes: u64) -> Result<()> {
        while bytes > 0 {
            let now = bytes.min(64);
            self.put(&[0; 64][..now as usize], "padding")?;
            bytes -= now;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        let at = self.position;
        self.out
            .write_all(bytes)
            .map_err(|e| Error::from(e).context(format!("writing {what} at byte {at} of a GGUF file")))?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_type(out: &mut Vec<u8>, kind: Type) {
    out.extend_from_slice(&(kind as u32).to_le_bytes());
}

/// Writes a value, led by its type.
fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::Uint(v) => match u32::try_from(*v) {
            Ok(v) => put(out, Type::U32, &v.to_le_bytes()),
            Err(_) => put(out, Type::U64, &v.to_le_bytes()),
        },
        Value::Int(v) => match i32::try_from(*v) {
            Ok(v) => put(out, Type::I32, &v.to_le_bytes()),
            Err(_) => put(out, Type::I64, &v.to_le_bytes()),
        },
        Value::Float32(v) => put(out, Type::F32, &v.to_le_bytes()),
        Value::Float64(v) => put(out, Type::F64, &v.to_le_bytes()),
        Value::Bool(v) => put(out, Type::Bool, &[u8::from(*v)]),
        Value::String(v) => {
            put_type(out, Type::String);
            put_string(out, v);
        }
        Value::Strings(_) | Value::Ints(_) | Value::Floats(_) | Value::Bools(_) | Value::Array(_) => {
            put_type(out, Type::Array);
            put_array(out, value, 1)?;
        }
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, kind: Type, bytes: &[u8]) {
    put_type(out, kind);
    out.extend_from_slice(bytes);
}

/// Writes the elements' type, their number and the elements of an array.
fn put_array(out: &mut Vec<u8>, array: &Value, depth: u32) -> Result<()> {
    let mut start = |kind: Type, count: usize| {
        put_type(out, kind);
        out.extend_from_slice(&(count as u64).to_le_bytes());
    };
    match array {
        Value::Strings(values) => {
            start(Type::String, values.len());
            values.iter().for_each(|v| put_string(out, v));
        }
        Value::Ints(values) if values.iter().all(|&v| i32::try_from(v).is_ok()) => {
            start(Type::I32, values.len());
            values.iter().for_each(|&v| out.extend_from_slice(&(v as i32).to_le_bytes()));
        }
        Value::Ints(values) => {
            start(Type::I64, values.len());
            values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
        Value::Floats(values) => {
            start(Type::F32, values.len());
            values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
        Value::Bools(values) => {
            start(Type::Bool, values.len());
            out.extend(values.iter().map(|&v| u8::from(v)));
        }
        Value::Array(_) if depth == MAX_DEPTH => {
            return Err(Error::unsupported(format!("arrays nested deeper than {MAX_DEPTH}")));
        }
        Value::Array(values) => {
            start(Type::Array, values.len());
            for value in values {
                put_array(out, value, depth + 1)?;
            }
        }
        _ => {
            let found = array.type_name();
            return Err(Error::format(format!("an array of mixed values: found {found}, expected an array")));
        }
    }
    Ok(())
}
