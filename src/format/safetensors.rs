//! Safetensors (specification: the README of the `safetensors` repository): eight bytes with the header's length, a JSON
//! header that names the tensors, then their data.
//!
//! A file is not trusted. The header's length is held against the file before anything is reserved for it, names are
//! unique, sizes follow from shapes, and the tensors cover the data without overlap or hole, as the specification wants.

mod header;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::ByteSource;

pub use writer::header;

/// The longest header that is read: what the reference implementation takes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What a tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "spelled as in the files")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Element {
    BOOL,
    U8,
    I8,
    F8_E4M3,
    F8_E5M2,
    U16,
    I16,
    F16,
    BF16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
}

impl Element {
    const ALL: [(&'static str, Element, u64); 15] = [
        ("BOOL", Element::BOOL, 1),
        ("U8", Element::U8, 1),
        ("I8", Element::I8, 1),
        ("F8_E4M3", Element::F8_E4M3, 1),
        ("F8_E5M2", Element::F8_E5M2, 1),
        ("U16", Element::U16, 2),
        ("I16", Element::I16, 2),
        ("F16", Element::F16, 2),
        ("BF16", Element::BF16, 2),
        ("U32", Element::U32, 4),
        ("I32", Element::I32, 4),
        ("F32", Element::F32, 4),
        ("U64", Element::U64, 8),
        ("I64", Element::I64, 8),
        ("F64", Element::F64, 8),
    ];

    fn row(self) -> (&'static str, u64) {
        let found = Self::ALL.iter().find(|(_, element, _)| *element == self);
        found.map_or(("", 0), |&(name, _, bytes)| (name, bytes))
    }

    /// The name in files.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        self.row().1
    }

    fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|row| row.0 == name).map(|row| row.1)
    }

    /// The weight format with the same bytes; `None` where there is none.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Element::F32 => Some(DType::F32),
            Element::F16 => Some(DType::F16),
            Element::BF16 => Some(DType::BF16),
            _ => None,
        }
    }
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name, such as `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// What its elements are.
    pub element: Element,
    /// Outermost first; a scalar has no dimension.
    pub shape: Vec<u64>,
    /// From the file's start, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// An opened file: its header, checked, and the source that its tensors are read from.
///
/// ```
/// use anygpu::format::safetensors::{Element, Safetensors, header};
/// let mut file = header(&[("x", Element::F32, vec![2])], &Default::default())?;
/// file.extend([0; 8]);
/// let file = pollster::block_on(Safetensors::open(std::sync::Arc::new(file)))?;
/// let x = file.tensor("x").unwrap();
/// assert_eq!((x.element, x.shape.as_slice()), (Element::F32, &[2][..]));
/// # Ok::<(), anygpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Safetensors {
    source: Arc<dyn ByteSource>,
    metadata: BTreeMap<String, String>,
    /// By name.
    tensors: BTreeMap<String, TensorInfo>,
}

impl Safetensors {
    /// Reads and checks the header; no tensor is read.
    ///
    /// # Errors
    /// `Format`, naming the tensor, where the file is not safetensors, is truncated or contradicts itself;
    /// `Unsupported` for elements that are not known; `Io` where reading fails.
    pub async fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let named = |error: Error| error.context("safetensors");
        let (metadata, tensors) = Self::read(&*source).await.map_err(named)?;
        Ok(Self { source, metadata, tensors })
    }

    async fn read(source: &dyn ByteSource) -> Result<(BTreeMap<String, String>, BTreeMap<String, TensorInfo>)> {
        let total = source.len();
        if total < 8 {
            return Err(Error::format(format!("{total} bytes: expected at least 8, the length of the header")));
        }
        let start = source.read(0, 8).await?;
        let length = start.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        if length > MAX_HEADER_BYTES || length > total - 8 {
            return Err(Error::format(format!(
                "header of {length} bytes: expected at most {MAX_HEADER_BYTES} and the file's other {}",
                total - 8
            )));
        }
        let bytes = source.read(8, length as usize).await?;
        let header = header::parse(&bytes)?;
        let data = 8 + length;
        let mut tensors = BTreeMap::new();
        for (name, entry) in header.tensors {
            let info = entry.place(&name, data, total).map_err(|error| error.context(format!("tensor {name}")))?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(Error::format(format!("tensor {name}: found twice, expected once")));
            }
        }
        check_cover(&tensors, data, total)?;
        Ok((header.metadata, tensors))
    }

    /// The texts under `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The tensor of a name, with these elements and as many dimensions as `shape` has; `None` in `shape` is any size.
    ///
    /// # Errors
    /// `Format`, naming the tensor, what was found and what was expected.
    pub fn expect(&self, name: &str, element: Element, shape: &[Option<u64>]) -> Result<&TensorInfo> {
        let info = self
            .tensor(name)
            .ok_or_else(|| Error::format(format!("safetensors: tensor {name}: not found, expected in the file")))?;
        let fits = info.shape.len() == shape.len()
            && info.shape.iter().zip(shape).all(|(&found, wanted)| wanted.is_none_or(|wanted| wanted == found));
        if info.element != element || !fits {
            let sizes: Vec<_> = shape.iter().map(|size| size.map_or("any".to_owned(), |n| n.to_string())).collect();
            return Err(Error::format(format!(
                "safetensors: tensor {name}: found {} {:?}, expected {} [{}]",
                info.element.name(),
                info.shape,
                element.name(),
                sizes.join(", ")
            )));
        }
        Ok(info)
    }

    /// Where the file's bytes come from.
    pub fn source(&self) -> &Arc<dyn ByteSource> {
        &self.source
    }
}

impl std::fmt::Debug for Safetensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Safetensors").field("tensors", &self.tensors).finish_non_exhaustive()
    }
}

/// The data of all tensors: one behind the other from the header to the file's end.
fn check_cover(tensors: &BTreeMap<String, TensorInfo>, data: u64, total: u64) -> Result<()> {
    let mut by_offset: Vec<&TensorInfo> = tensors.values().collect();
    by_offset.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
    let mut end = data;
    for tensor in by_offset {
        if tensor.offset != end {
            return Err(Error::format(format!(
                "tensor {}: starts at byte {} of the data, expected {}, where the one before it ends",
                tensor.name,
                tensor.offset - data,
                end - data
            )));
        }
        end += tensor.bytes;
    }
    if end != total {
        return Err(Error::format(format!("data: tensors end at byte {end}, expected the file's end at {total}")));
    }
    Ok(())
}
