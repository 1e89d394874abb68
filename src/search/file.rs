//! An index as a safetensors file: `ids` (U64), `vectors` (F32 or F16, or I8 with `scales` in F16, one for 32 numbers), and
//! whatever its owner adds. Removed vectors are left out.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use super::{Index, Metric, part};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::format::safetensors::{Element, Safetensors, header};
use crate::gpu::Context;
use crate::quant;

/// A tensor that lies in the file beside the index: texts, for example.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Its name; `ids`, `vectors` and `scales` are taken.
    pub name: String,
    /// What its elements are.
    pub element: Element,
    /// Outermost first.
    pub shape: Vec<u64>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Rows read back or written at a time.
const ROWS_AT_ONCE: usize = 1 << 14;
/// Numbers that share a scale.
const BLOCK: usize = 32;

impl Index {
    /// Ids and rows of vectors that are not removed, part by part.
    pub(super) fn rows_left(&self) -> impl Iterator<Item = (u64, usize, usize)> + '_ {
        let mut first = 0;
        self.parts.iter().enumerate().flat_map(move |(number, part)| {
            let start = first;
            first += part.rows();
            let rows = (0..part.rows()).filter(|&row| !part.is_removed(row));
            rows.map(move |row| (self.ids[start + row], number, row))
        })
    }

    /// Writes the index, and `extras` behind it.
    ///
    /// # Errors
    /// `Shape` where an extra's bytes or name do not fit, `Io` where writing fails; what the device reports.
    pub async fn save(&self, out: &mut (dyn Write + Send), extras: &[Extra]) -> Result<()> {
        let (n, d) = (self.len() as u64, self.dims as u64);
        let blocks = self.dims.div_ceil(BLOCK) as u64;
        let quantized = self.dtype == DType::Q8_0;
        let mut tensors = vec![("ids", Element::U64, vec![n])];
        match self.dtype {
            DType::F32 => tensors.push(("vectors", Element::F32, vec![n, d])),
            DType::F16 => tensors.push(("vectors", Element::F16, vec![n, d])),
            _ => {
                tensors.push(("vectors", Element::I8, vec![n, blocks * BLOCK as u64]));
                tensors.push(("scales", Element::F16, vec![n, blocks]));
            }
        }
        for extra in extras {
            let expected = extra.shape.iter().product::<u64>() * extra.element.bytes();
            if extra.bytes.len() as u64 != expected {
                let (name, found) = (&extra.name, extra.bytes.len());
                return Err(Error::shape(format!("tensor {name}: {found} bytes, expected {expected}")));
            }
            tensors.push((extra.name.as_str(), extra.element, extra.shape.clone()));
        }
        let metric = match self.metric {
            Metric::Cosine => "cosine",
            Metric::Dot => "dot",
        };
        let metadata = BTreeMap::from([
            ("format".to_owned(), "anygpu index".to_owned()),
            ("metric".to_owned(), metric.to_owned()),
            ("dtype".to_owned(), self.dtype.name().to_owned()),
            ("dimensions".to_owned(), self.dims.to_string()),
            ("next_id".to_owned(), self.next_id.to_string()),
        ]);
        out.write_all(&header(&tensors, &metadata)?)?;
        for (id, ..) in self.rows_left() {
            out.write_all(&id.to_le_bytes())?;
        }
        let mut scales = Vec::new();
        for part in &self.parts {
            for start in (0..part.rows()).step_by(ROWS_AT_ONCE) {
                let count = ROWS_AT_ONCE.min(part.rows() - start);
                let rows = part.read(&self.context, start, count).await?;
                for (row, bytes) in (start..).zip(rows).filter(|(row, _)| !part.is_removed(*row)) {
                    debug_assert!(row < part.rows());
                    if quantized {
                        for block in bytes.chunks_exact(2 + BLOCK) {
                            scales.extend_from_slice(&block[..2]);
                            out.write_all(&block[2..])?;
                        }
                    } else {
                        out.write_all(&bytes[..self.dims * bytes.len() / part::padded(self.dims)])?;
                    }
                }
            }
        }
        out.write_all(&scales)?;
        for extra in extras {
            out.write_all(&extra.bytes)?;
        }
        Ok(out.flush()?)
    }

    /// Reads an index onto a device; vectors are as they were to the bit.
    ///
    /// # Errors
    /// `Format` for a file that is no index or contradicts itself, `OutOfMemory` where it does not fit.
    pub async fn load(context: &Context, source: Arc<dyn ByteSource>) -> Result<Self> {
        let file = Safetensors::open(source).await?;
        let get = |key: &str| {
            let value = file.metadata().get(key).map(String::as_str);
            value.ok_or_else(|| Error::format(format!("index: metadata {key}: not found, expected it in an index")))
        };
        let number = |key: &str| -> Result<u64> {
            let text = get(key)?;
            text.parse().map_err(|_| Error::format(format!("index: metadata {key}: found {text:?}, expected a number")))
        };
        let metric = match get("metric")? {
            "cosine" => Metric::Cosine,
            "dot" => Metric::Dot,
            other => {
                return Err(Error::format(format!("index: metadata metric: found {other:?}, expected cosine or dot")));
            }
        };
        let dtype: DType = get("dtype")?.parse().map_err(|error: Error| error.context("index: metadata dtype"))?;
        let dims = usize::try_from(number("dimensions")?).unwrap_or(usize::MAX);
        let next_id = number("next_id")?;
        if dims > 1 << 20 {
            return Err(Error::format(format!("index: {dims} dimensions, expected at most {}", 1 << 20)));
        }
        let mut index = Self::new(context, dims, dtype, metric)?;
        let blocks = dims.div_ceil(BLOCK) as u64;
        let ids_info = file.expect("ids", Element::U64, &[None])?;
        let n = ids_info.shape[0];
        let vectors = match dtype {
            DType::F32 => file.expect("vectors", Element::F32, &[Some(n), Some(dims as u64)])?,
            DType::F16 => file.expect("vectors", Element::F16, &[Some(n), Some(dims as u64)])?,
            _ => file.expect("vectors", Element::I8, &[Some(n), Some(blocks * BLOCK as u64)])?,
        };
        let scales = match dtype {
            DType::Q8_0 => Some(file.expect("scales", Element::F16, &[Some(n), Some(blocks)])?),
            _ => None,
        };
        let n = n as usize;
        let ids = file.source().read(ids_info.offset, ids_info.bytes as usize).await?;
        let ids: Vec<u64> =
            ids.chunks_exact(8).map(|b| b.iter().rev().fold(0, |id, &b| id << 8 | u64::from(b))).collect();
        if !ids.is_sorted_by(|a, b| a < b) || ids.last().is_some_and(|&last| last >= next_id) {
            return Err(Error::format(format!("index: tensor ids: expected ascending numbers below {next_id}")));
        }
        index.reserve(n)?;
        let row_bytes = (vectors.bytes as usize).checked_div(n).unwrap_or(0);
        for start in (0..n).step_by(ROWS_AT_ONCE) {
            let count = ROWS_AT_ONCE.min(n - start);
            let bytes = file.source().read(vectors.offset + (start * row_bytes) as u64, count * row_bytes).await?;
            let scales = match scales {
                Some(info) => {
                    let each = 2 * blocks as usize;
                    file.source().read(info.offset + (start * each) as u64, count * each).await?.into_owned()
                }
                None => Vec::new(),
            };
            for row in 0..count {
                let own = &bytes[row * row_bytes..][..row_bytes];
                let ggml = ggml_row(dtype, dims, own, &scales, row);
                let mut values = vec![0.0; part::padded(dims)];
                quant::dequantize(dtype, &ggml, &mut values)?;
                if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                    let row = start + row;
                    return Err(Error::format(format!("index: vector {row}: found {value}, expected finite numbers")));
                }
                let part = index.writable().ok_or_else(|| Error::shape("index: no room for a reserved vector"))?;
                part.stage_blocks(&ggml)?;
                index.ids.push(ids[start + row]);
            }
            index.flush();
            index.context.finish().await?;
        }
        index.next_id = next_id;
        Ok(index)
    }
}

/// GGML's blocks of a row of the file.
fn ggml_row(dtype: DType, dims: usize, bytes: &[u8], scales: &[u8], row: usize) -> Vec<u8> {
    if dtype != DType::Q8_0 {
        let mut out = bytes.to_vec();
        out.resize(bytes.len() / dims * part::padded(dims), 0);
        return out;
    }
    let blocks = dims.div_ceil(BLOCK);
    let scale = |block: usize| &scales[2 * (row * blocks + block)..][..2];
    bytes.chunks_exact(BLOCK).enumerate().flat_map(|(block, quants)| [scale(block), quants].concat()).collect()
}
