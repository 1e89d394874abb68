//! GGUF, versions 2 and 3, little-endian (specification: `docs/gguf.md` of ggml): metadata, then a list of tensors,
//! then their data.
//!
//! A file is not trusted. Counts and lengths are held against the bytes that are left before anything is reserved for
//! them, so that memory stays within a small multiple of the header's true size; names are unique, rows are whole
//! blocks, and every tensor lies inside the file, aligned, apart from all others.

mod cursor;
mod types;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::{ByteSource, Metadata};

use cursor::{Cursor, Reader, Stop};
pub use writer::Writer;

/// Longest key, as in the specification.
const MAX_KEY_BYTES: u64 = 65_535;
/// Longest tensor name. The specification says 64; other tools write longer ones.
const MAX_NAME_BYTES: u64 = 256;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
/// Alignments taken: the specification asks for a multiple of 8; more than a large page serves nothing.
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 8..=1 << 21;
const ALIGNMENT_KEY: &str = "general.alignment";
/// Bytes of the smallest metadata entry: key length, a key of one byte, type, a value of one byte.
const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;
/// Bytes of the smallest tensor entry: name length, a name of one byte, dimensions, one of them, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// Where a tensor lies in a file, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// The format of its elements.
    pub dtype: DType,
    /// Outermost first: `[rows, cols]`. Rows are whole blocks.
    pub shape: Vec<u64>,
    /// From the file's start, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// A tensor that has no place in a file yet: `offset` is 0, [`Writer`] chooses it.
    ///
    /// # Errors
    /// `Shape` where there are not 1 to 4 dimensions, one is 0, a row is no whole number of blocks, or the size
    /// overflows; `Format` where the name is empty or too long.
    pub fn new(name: impl Into<String>, dtype: DType, shape: impl Into<Vec<u64>>) -> Result<Self> {
        let (name, shape) = (name.into(), shape.into());
        if name.is_empty() || name.len() as u64 > MAX_NAME_BYTES {
            let found = name.len();
            return Err(Error::format(format!("tensor name of {found} bytes: expected 1 to {MAX_NAME_BYTES}")));
        }
        if shape.is_empty() || shape.len() > MAX_DIMENSIONS as usize {
            let found = shape.len();
            return Err(Error::shape(format!("tensor {name}: {found} dimensions, expected 1 to {MAX_DIMENSIONS}")));
        }
        if shape.contains(&0) {
            return Err(Error::shape(format!("tensor {name}: shape {shape:?}, expected no dimension of 0")));
        }
        let row = shape[shape.len() - 1];
        let block = dtype.block_len() as u64;
        if !row.is_multiple_of(block) {
            return Err(Error::shape(format!(
                "tensor {name}: rows of {row} elements, expected a multiple of {block} for {dtype}"
            )));
        }
        let elements = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n)).ok_or_else(|| {
            Error::shape(format!("tensor {name}: shape {shape:?}, expected fewer than 2^64 elements"))
        })?;
        let bytes = dtype.bytes(elements).map_err(|e| e.context(format!("tensor {name}")))?;
        Ok(Self { name, dtype, shape, offset: 0, bytes })
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// An opened GGUF file: its header, checked, and the source that its tensors are read from.
///
/// ```
/// # use anygpu::format::{gguf::{Gguf, TensorInfo, Writer}, metadata::{Metadata, Value}};
/// # use anygpu::DType;
/// # use std::sync::Arc;
/// let metadata = Metadata::from_iter([("general.architecture", Value::String("llama".into()))]);
/// let tensors = vec![TensorInfo::new("output_norm.weight", DType::F32, [2])?];
/// let mut writer = Writer::new(Vec::new(), &metadata, tensors)?;
/// writer.write("output_norm.weight", &[0; 8])?;
/// let file = writer.finish()?;
///
/// let gguf = pollster::block_on(Gguf::open(Arc::new(file)))?;
/// let norm = gguf.tensor("output_norm.weight").unwrap();
/// let bytes = pollster::block_on(gguf.source().read(norm.offset, norm.bytes as usize))?;
/// assert_eq!((norm.shape.as_slice(), bytes.as_ref()), ([2].as_slice(), [0; 8].as_slice()));
/// # Ok::<(), anygpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Gguf {
    source: Arc<dyn ByteSource>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<usize>,
}

impl Gguf {
    /// Reads the header of a file, in chunks that grow while more is needed; no tensor is read.
    ///
    /// # Errors
    /// `Format` where the file is not GGUF, is truncated or contradicts itself; `Unsupported` for version 1, big-endian
    /// files, one part of a split file, and tensor types that this crate does not have; `Io` where reading fails.
    pub async fn open(source: Arc<dyn ByteSource>) -> Result<Gguf> {
        let (version, metadata, tensors) = read_header(&*source).await.map_err(|e| e.context("GGUF"))?;
        let by_name = sort_names(&tensors).map_err(|e| e.context("GGUF"))?;
        Ok(Gguf { source, version, metadata, tensors, by_name })
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file's list.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let found = self.by_name.binary_search_by(|&i| self.tensors[i].name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[self.by_name[found]])
    }

    /// Where the file's bytes come from.
    pub fn source(&self) -> &Arc<dyn ByteSource> {
        &self.source
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf").field("version", &self.version).field("tensors", &self.tensors).finish_non_exhaustive()
    }
}

async fn read_header(source: &dyn ByteSource) -> Result<(u32, Metadata, Vec<TensorInfo>)> {
    let mut reader = Reader::new(source);
    let version = reader.item(read_version).await?;
    let (tensor_count, entry_count) = reader.item(read_counts).await?;

    let mut metadata = Metadata::default();
    for index in 0..entry_count {
        let (key, value) = reader.item(|cursor| read_entry(cursor, index)).await?;
        if metadata.get(&key).is_some() {
            return Err(Error::format(format!("metadata {key}: found twice, expected once")));
        }
        metadata.insert(key, value);
    }
    if let Some(parts) = metadata.u64("split.count")?
        && parts > 1
    {
        return Err(Error::unsupported(format!(
            "split.count: one of {parts} parts of a split file, expected a whole file (llama-gguf-split --merge)"
        )));
    }
    let alignment = alignment(&metadata)?;

    // The count was held against the file's length, but entries are smaller there than here: no reservation.
    let mut tensors = Vec::new();
    for index in 0..tensor_count {
        tensors.push(reader.item(|cursor| read_tensor(cursor, index)).await?);
    }
    place_tensors(&mut tensors, reader.position(), alignment, source.len())?;
    Ok((version, metadata, tensors))
}

fn read_version(cursor: &mut Cursor) -> Result<u32, Stop> {
    let magic = cursor.peek(16)?;
    if !magic.starts_with(b"GGUF") {
        return Err(wrong_magic(magic).into());
    }
    cursor.take(4, "the magic")?;
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        1 => Err(Error::unsupported("version 1: expected 2 or 3; convert the model anew").into()),
        _ if (1..=3).contains(&version.swap_bytes()) => {
            Err(Error::unsupported("big-endian file: expected a little-endian one").into())
        }
        _ => Err(Error::unsupported(format!("version {version}: expected 2 or 3")).into()),
    }
}

/// The error for a file that does not start with `GGUF`, with a word on what it looks like.
fn wrong_magic(start: &[u8]) -> Error {
    let looks_like = match start {
        [] => "; the file is empty",
        [_, _, _, _, _, _, 0, 0, b'{', ..] => "; it looks like a safetensors file",
        [b'P', b'K', 3 | 5, ..] => "; it looks like a zip archive, such as a PyTorch checkpoint",
        [0x80, 2..=5, ..] => "; it looks like a Python pickle",
        [b'l' | b'f' | b't' | b'a', b'm' | b'j' | b'l', b'g', b'g', ..] => {
            "; it looks like a GGML file from before GGUF, convert the model anew"
        }
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', ..] => {
            "; it looks like a Git LFS pointer, fetch the file itself"
        }
        [b'<', ..] => "; it looks like a web page, the download went wrong",
        _ => "",
    };
    let found = &start[..start.len().min(4)];
    Error::format(format!("magic: found \"{}\", expected \"GGUF\"{looks_like}", found.escape_ascii()))
}

/// The number of tensors and of metadata entries.
fn read_counts(cursor: &mut Cursor) -> Result<(u64, u64), Stop> {
    let tensors = cursor.u64("tensor_count")?;
    let entries = cursor.u64("metadata_kv_count")?;
    let left = cursor.remaining();
    let needed = |count: u64, each: u64| count.checked_mul(each);
    let sum = needed(tensors, MIN_TENSOR_BYTES)
        .zip(needed(entries, MIN_ENTRY_BYTES))
        .and_then(|(tensors, entries)| tensors.checked_add(entries));
    if sum.is_none_or(|sum| sum > left) {
        return Err(Error::format(format!(
            "tensor_count {tensors} and metadata_kv_count {entries}: expected no more than fit into the {left} bytes left"
        ))
        .into());
    }
    Ok((tensors, entries))
}

fn read_entry(cursor: &mut Cursor, index: u64) -> Result<(String, crate::format::Value), Stop> {
    let key = cursor.string(1, MAX_KEY_BYTES).map_err(|stop| stop.context(|| format!("metadata key {index}")))?;
    let value = types::read_value(cursor).map_err(|stop| stop.context(|| format!("metadata {key}")))?;
    Ok((key, value))
}

/// Reads a tensor's entry; its `offset` is still relative to the data's start.
fn read_tensor(cursor: &mut Cursor, index: u64) -> Result<TensorInfo, Stop> {
    let name = cursor.string(1, MAX_NAME_BYTES).map_err(|stop| stop.context(|| format!("name of tensor {index}")))?;
    let in_tensor = |stop: Stop| stop.context(|| format!("tensor {name}"));
    let dimensions = cursor.u32("n_dimensions").map_err(in_tensor)?;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(
            Error::format(format!("tensor {name}: n_dimensions {dimensions}, expected 1 to {MAX_DIMENSIONS}")).into()
        );
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(cursor.u64("dimensions").map_err(in_tensor)?);
    }
    // The file has the innermost first.
    shape.reverse();
    let dtype = DType::from_ggml(cursor.u32("type").map_err(in_tensor)?).map_err(|e| in_tensor(e.into()))?;
    let offset = cursor.u64("offset").map_err(in_tensor)?;
    // Whatever is wrong with a shape here is wrong with the file.
    let info = TensorInfo::new(name, dtype, shape).map_err(|e| Error::format(e.to_string()))?;
    Ok(TensorInfo { offset, ..info })
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || !ALIGNMENTS.contains(&alignment) {
        let (low, high) = (ALIGNMENTS.start(), ALIGNMENTS.end());
        return Err(Error::format(format!(
            "metadata {ALIGNMENT_KEY}: found {alignment}, expected a power of two from {low} to {high}"
        )));
    }
    Ok(alignment)
}

/// Indices of tensors sorted by name; checks that no two share one.
fn sort_names(tensors: &[TensorInfo]) -> Result<Vec<usize>> {
    let mut by_name: Vec<usize> = (0..tensors.len()).collect();
    by_name.sort_unstable_by(|&a, &b| tensors[a].name.cmp(&tensors[b].name));
    match by_name.windows(2).find(|pair| tensors[pair[0]].name == tensors[pair[1]].name) {
        Some(pair) => Err(Error::format(format!("tensor {}: found twice, expected once", tensors[pair[0]].name))),
        None => Ok(by_name),
    }
}

/// Makes offsets absolute; checks that tensors are aligned, inside the file and apart from one another.
fn place_tensors(tensors: &mut [TensorInfo], header_bytes: u64, alignment: u64, file_bytes: u64) -> Result<()> {
    // The header lies within the file, whose length is far below u64::MAX for any source there is; a source that
    // claims otherwise gets an error all the same.
    let data = header_bytes
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| Error::format("data section: expected it to start before 2^64 bytes"))?;
    for tensor in &mut *tensors {
        let TensorInfo { name, offset, bytes, .. } = &tensor;
        if !offset.is_multiple_of(alignment) {
            return Err(Error::format(format!("tensor {name}: offset {offset}, expected a multiple of {alignment}")));
        }
        let start = data.checked_add(*offset);
        if start.and_then(|start| start.checked_add(*bytes)).is_none_or(|end| end > file_bytes) {
            return Err(Error::format(format!(
                "tensor {name}: {bytes} bytes at offset {offset} of the data, which starts at {data}; expected them to \
                 end within the file's {file_bytes} bytes"
            )));
        }
        tensor.offset += data;
    }
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_unstable_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            return Err(Error::format(format!(
                "tensors {} and {} overlap: {} bytes at {} and {} bytes at {}, expected tensors apart",
                pair[0].name, pair[1].name, pair[0].bytes, pair[0].offset, pair[1].bytes, pair[1].offset
            )));
        }
    }
    Ok(())
}
