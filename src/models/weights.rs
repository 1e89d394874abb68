//! Matrices on the GPU: packed row by row, cut by rows where they are larger than a binding, filled from a file or at
//! random.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::format::gguf::{Gguf, TensorInfo};
use crate::gpu::Context;
use crate::gpu::upload::{Destination, Uploader};
use crate::kernels::synthetic::Synthetic;
use crate::layout;
use crate::plan::Builder;
use crate::profile::Profile;
use crate::quant;
use crate::tensor::{Storage, Tensor};

/// Bytes of a file that are packed at a time; in a browser the file's and the packed ones pass through its 4 GiB heap.
const CHUNK_BYTES: usize = if cfg!(target_arch = "wasm32") { 8 << 20 } else { 32 << 20 };

/// What is told the bytes of a file that are done.
#[cfg(not(target_arch = "wasm32"))]
pub type Progress<'a> = dyn FnMut(u64) + Send + 'a;
/// What is told the bytes of a file that are done.
#[cfg(target_arch = "wasm32")]
pub type Progress<'a> = dyn FnMut(u64) + 'a;

/// A matrix `[rows, cols]`, in one or more parts of whole rows.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Format of all parts.
    pub dtype: DType,
    /// Rows of all parts.
    pub rows: usize,
    /// Columns, without padding.
    pub cols: usize,
    /// First row and tensor `[rows, padded cols]` of each part.
    pub parts: Vec<(usize, Tensor)>,
}

/// Matrices with the same input whose outputs lie side by side: the column where each one's output starts.
pub type Group = Vec<(usize, Matrix)>;

/// Tensors of a file by name, whatever the file's format.
#[derive(Clone)]
pub struct TensorFile {
    source: Arc<dyn ByteSource>,
    tensors: BTreeMap<String, TensorInfo>,
    /// What matrices become as they are loaded.
    matrices: Option<DType>,
}

impl TensorFile {
    /// These tensors of a source. Matrices become `matrices` as they are loaded, where it is given.
    ///
    /// # Errors
    /// `Shape` where a matrix's rows are no whole blocks of that.
    pub fn new(source: Arc<dyn ByteSource>, tensors: Vec<TensorInfo>, matrices: Option<DType>) -> Result<Self> {
        for tensor in tensors.iter().filter(|tensor| tensor.shape.len() == 2) {
            let dtype = matrices.unwrap_or(tensor.dtype);
            dtype.bytes(tensor.shape[1]).map_err(|error| error.context(format!("tensor {}", tensor.name)))?;
        }
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Ok(Self { source, tensors, matrices })
    }

    fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| Error::format(format!("tensor {name}: not found, expected in the file")))
    }

    /// Bytes of all tensors in the file.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.bytes).sum()
    }

    /// A tensor's elements as they are computed with: rounded to the format that its matrix becomes.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn values(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.tensor(name)?;
        let bytes = self.source.read(info.offset, info.bytes as usize).await?;
        let mut values = vec![0.0; info.elements() as usize];
        quant::dequantize(info.dtype, &bytes, &mut values).map_err(|error| error.context(name))?;
        if let Some(dtype) = self.matrices.filter(|&dtype| info.shape.len() == 2 && dtype != info.dtype) {
            let mut blocks = Vec::new();
            quant::quantize(dtype, &values, &mut blocks).map_err(|error| error.context(name))?;
            quant::dequantize(dtype, &blocks, &mut values).map_err(|error| error.context(name))?;
        }
        Ok(values)
    }
}

#[cfg(feature = "burn-inference")]
impl TensorFile {
    /// A matrix's format and its rows, packed as on the GPU.
    ///
    /// # Errors
    /// `Shape` where it is no matrix, or what reading gives.
    pub async fn packed(&self, name: &str) -> Result<(DType, [usize; 2], Vec<u8>)> {
        let info = self.tensor(name)?;
        let [rows, cols] = info.shape[..] else {
            let found = &info.shape;
            return Err(Error::shape(format!("tensor {name}: found shape {found:?}, expected a matrix")));
        };
        let [rows, cols] = [rows as usize, cols as usize];
        let mut dtype = info.dtype;
        let mut bytes = self.source.read(info.offset, info.bytes as usize).await?;
        if let Some(matrices) = self.matrices.filter(|&matrices| matrices != dtype) {
            let blocks = convert(dtype, &bytes, rows * cols, matrices).map_err(|error| error.context(name))?;
            (dtype, bytes) = (matrices, blocks.into());
        }
        let row_bytes = layout::row_bytes(dtype, layout::padded_cols(dtype, cols));
        let mut packed = vec![0; rows * row_bytes];
        let file_row = dtype.bytes(cols as u64)? as usize;
        for (row, out) in bytes.chunks_exact(file_row).zip(packed.chunks_exact_mut(row_bytes)) {
            layout::pack_row(dtype, row, out)?;
        }
        Ok((dtype, [rows, cols], packed))
    }
}

/// Where weights come from.
#[derive(Clone)]
pub enum Weights {
    /// A file.
    File(Arc<Gguf>),
    /// Tensors of a file, under the names that the model asks for.
    Tensors(Arc<TensorFile>),
    /// Random numbers in one format, made on the GPU.
    Synthetic(DType),
}

/// Elements of one format in another.
fn convert(from: DType, bytes: &[u8], elements: usize, to: DType) -> Result<Vec<u8>> {
    let mut values = vec![0.0; elements];
    quant::dequantize(from, bytes, &mut values)?;
    let mut blocks = Vec::new();
    quant::quantize(to, &values, &mut blocks)?;
    Ok(blocks)
}

/// Rows of a matrix that one buffer and one binding hold.
fn rows_per_part(dtype: DType, cols: usize, profile: &Profile) -> Result<usize> {
    let row = layout::row_bytes(dtype, layout::padded_cols(dtype, cols)) as u64;
    let limit = profile.limits.max_binding_bytes.min(profile.limits.max_buffer_bytes);
    match (limit / row) as usize {
        0 => {
            Err(Error::out_of_memory(format!("a row of {cols} {dtype}: {row} bytes, expected at most {limit} to bind")))
        }
        // Whole blocks of rows, as kernels write them.
        rows => Ok(if rows > 32 { rows / 32 * 32 } else { rows }),
    }
}

/// Bytes on the GPU of a matrix.
///
/// # Errors
/// `OutOfMemory` where one row is more than the device binds.
pub fn matrix_bytes(dtype: DType, rows: usize, cols: usize, profile: &Profile) -> Result<u64> {
    rows_per_part(dtype, cols, profile)?;
    Ok(rows as u64 * layout::row_bytes(dtype, layout::padded_cols(dtype, cols)) as u64)
}

/// Loads matrices and vectors, and says how far it is.
pub struct Loader<'a> {
    context: &'a Context,
    weights: Weights,
    uploader: Uploader,
    loaded: u64,
    progress: &'a mut Progress<'a>,
    seed: u32,
}

impl<'a> Loader<'a> {
    /// A loader; `progress` is told the bytes of the file that are done.
    pub fn new(context: &'a Context, weights: Weights, progress: &'a mut Progress<'a>) -> Self {
        Self { context, weights, uploader: Uploader::new(context), loaded: 0, progress, seed: 0 }
    }

    /// A tensor and where it is read from; `None` where weights are synthetic.
    fn tensor(&self, name: &str) -> Result<Option<(Arc<dyn ByteSource>, TensorInfo)>> {
        let missing = || Error::format(format!("tensor {name}: not found, expected in the file"));
        Ok(match &self.weights {
            Weights::File(gguf) => Some((gguf.source().clone(), gguf.tensor(name).cloned().ok_or_else(missing)?)),
            Weights::Tensors(file) => Some((file.source.clone(), file.tensor(name)?.clone())),
            Weights::Synthetic(_) => None,
        })
    }

    /// The format that a matrix has on the GPU.
    fn dtype(&self, name: &str) -> Result<DType> {
        Ok(match (&self.weights, self.tensor(name)?) {
            (Weights::Tensors(file), Some((_, info))) => file.matrices.unwrap_or(info.dtype),
            (Weights::Synthetic(dtype), _) => *dtype,
            (_, info) => info.map_or(DType::F32, |(_, info)| info.dtype),
        })
    }

    /// Matrices of the same input, `(name, rows)` each: neighbours of one format become one matrix, so that one dispatch
    /// serves them.
    ///
    /// # Errors
    /// `OutOfMemory`, or what reading gives.
    pub async fn group(&mut self, names: &[(String, usize)], cols: usize) -> Result<Group> {
        let mut group: Group = Vec::new();
        let mut start = 0;
        let mut at = 0;
        while at < names.len() {
            let dtype = self.dtype(&names[at].0)?;
            let mut end = at + 1;
            while end < names.len() && self.dtype(&names[end].0)? == dtype {
                end += 1;
            }
            let matrix = self.matrix(&names[at..end], dtype, cols).await?;
            let rows = matrix.rows;
            group.push((start, matrix));
            start += rows;
            at = end;
        }
        Ok(group)
    }

    /// One matrix of its own.
    ///
    /// # Errors
    /// As [`Self::group`].
    pub async fn single(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let dtype = self.dtype(name)?;
        self.matrix(&[(name.to_owned(), rows)], dtype, cols).await
    }

    async fn matrix(&mut self, names: &[(String, usize)], dtype: DType, cols: usize) -> Result<Matrix> {
        let rows: usize = names.iter().map(|(_, rows)| rows).sum();
        let padded = layout::padded_cols(dtype, cols);
        let row_bytes = layout::row_bytes(dtype, padded);
        let per_part = rows_per_part(dtype, cols, self.context.profile())?;
        let label = names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("+");
        let mut parts = Vec::new();
        for first in (0..rows).step_by(per_part) {
            let count = per_part.min(rows - first);
            let buffer = self.context.buffer(&label, (count * row_bytes) as u64)?;
            parts.push((first, Tensor::new(Storage::Buffer(buffer), 0, dtype, [count, padded])));
        }
        let matrix = Matrix { dtype, rows, cols, parts };
        let mut first = 0;
        for (name, rows) in names {
            let Some((source, info)) = self.tensor(name)? else {
                self.fill(&matrix)?;
                break;
            };
            self.upload(&*source, &info, *rows, first, &matrix, row_bytes).await.map_err(|e| e.context(name))?;
            first += rows;
        }
        Ok(matrix)
    }

    fn fill(&mut self, matrix: &Matrix) -> Result<()> {
        let mut builder = Builder::new(self.context);
        for (_, part) in &matrix.parts {
            self.seed += 1;
            builder.step("weight", Synthetic { w: part.clone(), seed: self.seed })?;
        }
        builder.finish()?.replay(0);
        Ok(())
    }

    /// Packs a tensor's rows into the matrix from row `first` on, a chunk at a time.
    async fn upload(
        &mut self,
        source: &dyn ByteSource,
        info: &TensorInfo,
        rows: usize,
        first: usize,
        matrix: &Matrix,
        row_bytes: usize,
    ) -> Result<()> {
        let file_row = info.dtype.bytes(matrix.cols as u64)? as usize;
        let chunk_rows = (CHUNK_BYTES / file_row.max(row_bytes)).clamp(1, rows.max(1));
        for start in (0..rows).step_by(chunk_rows) {
            let count = chunk_rows.min(rows - start);
            let mut bytes = source.read(info.offset + start as u64 * file_row as u64, count * file_row).await?;
            self.loaded += bytes.len() as u64;
            let mut packed_from = file_row;
            if info.dtype != matrix.dtype {
                packed_from = matrix.dtype.bytes(matrix.cols as u64)? as usize;
                bytes = convert(info.dtype, &bytes, count * matrix.cols, matrix.dtype)?.into();
            }
            // The chunk may span parts.
            let parts = matrix.parts.iter().filter_map(|(part_first, part)| {
                let rows = (first + start).max(*part_first)..(first + start + count).min(part_first + part.rows());
                let Storage::Buffer(buffer) = part.storage() else { return None };
                (!rows.is_empty()).then(|| Destination {
                    offset: ((rows.start - part_first) * row_bytes) as u64,
                    rows: rows.start - first - start..rows.end - first - start,
                    buffer,
                })
            });
            let parts: Vec<_> = parts.collect();
            let pack = |i: usize, out: &mut [u8]| {
                layout::pack_row(matrix.dtype, &bytes[i * packed_from..][..packed_from], out)
            };
            self.uploader.write(count, row_bytes, pack, &parts).await?;
            (self.progress)(self.loaded);
        }
        Ok(())
    }

    /// A vector of `len` elements as f32: its values on the host, or `None` where weights are synthetic.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn values(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some((source, info)) = self.tensor(name)? else { return Ok(None) };
        let bytes = source.read(info.offset, info.bytes as usize).await?;
        let mut values = vec![0.0; len];
        quant::dequantize(info.dtype, &bytes, &mut values).map_err(|e| e.context(name))?;
        self.loaded += info.bytes;
        Ok(Some(values))
    }

    /// A vector on the GPU as f32; ones where weights are synthetic.
    ///
    /// # Errors
    /// `OutOfMemory`, or what reading gives.
    pub async fn vector(&mut self, name: &str, len: usize) -> Result<Tensor> {
        let values = self.values(name, len).await?.unwrap_or_else(|| vec![1.0; len]);
        upload_floats(self.context, name, &values, [len])
    }
}

/// Floats on the GPU.
///
/// # Errors
/// `OutOfMemory`.
pub fn upload_floats(context: &Context, label: &str, values: &[f32], shape: impl Into<Vec<usize>>) -> Result<Tensor> {
    let buffer = context.buffer_from(label, bytemuck::cast_slice(values))?;
    Ok(Tensor::new(Storage::Buffer(buffer), 0, DType::F32, shape))
}

/// Words on the GPU.
///
/// # Errors
/// `OutOfMemory`.
pub fn upload_words(context: &Context, label: &str, values: &[u32], shape: impl Into<Vec<usize>>) -> Result<Tensor> {
    let buffer = context.buffer_from(label, bytemuck::cast_slice(values))?;
    Ok(Tensor::new(Storage::Buffer(buffer), 0, DType::U32, shape))
}
