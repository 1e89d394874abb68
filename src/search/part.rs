//! A part of an index: rows in one buffer that one binding shows, and a bit a row for those that are removed.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Context};
use crate::layout;
use crate::quant;
use crate::tensor::{Storage, Tensor};

/// Rows of the smallest part.
pub(super) const LEAST_ROWS: usize = 4096;
/// Rows of a part are a multiple of this, so that slices begin where bindings may.
const ROWS_MULTIPLE: usize = 512;

/// Numbers of a row on the GPU: kernels take blocks of 32, those behind a vector's are zero.
pub(super) fn padded(dims: usize) -> usize {
    dims.next_multiple_of(layout::SUB_BLOCK)
}

fn row_bytes(dims: usize, dtype: DType) -> usize {
    layout::row_bytes(dtype, padded(dims))
}

/// The most rows of a part under a limit of bytes.
pub(super) fn most_rows(dims: usize, dtype: DType, limit: u64) -> usize {
    (limit / row_bytes(dims, dtype) as u64) as usize / ROWS_MULTIPLE * ROWS_MULTIPLE
}

pub(super) struct Part {
    dims: usize,
    dtype: DType,
    capacity: usize,
    rows: usize,
    vectors: Buffer,
    /// Rows that are not written yet, packed.
    staged: Vec<u8>,
    removed: Vec<u32>,
    removed_buffer: Buffer,
    removed_changed: bool,
}

impl Part {
    /// A part for `wanted` rows, or as many as the device binds.
    pub fn new(context: &Context, dims: usize, dtype: DType, wanted: usize) -> Result<Self> {
        let limits = &context.profile().limits;
        let most = most_rows(dims, dtype, limits.max_binding_bytes.min(limits.max_buffer_bytes));
        let capacity = wanted.next_multiple_of(ROWS_MULTIPLE).min(most);
        let words = capacity.div_ceil(32);
        Ok(Self {
            dims,
            dtype,
            capacity,
            rows: 0,
            vectors: context.buffer("vectors", (capacity * row_bytes(dims, dtype)) as u64)?,
            staged: Vec::new(),
            removed: vec![0; words],
            removed_buffer: context.buffer("removed", 4 * words as u64)?,
            removed_changed: false,
        })
    }

    /// Rows, removed ones among them.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that can still be added.
    pub fn room(&self) -> usize {
        self.capacity - self.rows
    }

    pub fn bytes(&self) -> u64 {
        self.vectors.bytes() + self.removed_buffer.bytes()
    }

    /// `[rows, padded]`.
    pub fn tensor(&self) -> Tensor {
        Tensor::new(Storage::Buffer(self.vectors.clone()), 0, self.dtype, [self.rows, padded(self.dims)])
    }

    /// A bit a row.
    pub fn removed_tensor(&self) -> Tensor {
        Tensor::new(Storage::Buffer(self.removed_buffer.clone()), 0, DType::U32, [self.removed.len()])
    }

    pub fn is_removed(&self, row: usize) -> bool {
        self.removed[row / 32] >> (row % 32) & 1 == 1
    }

    /// Adds a row, to be written by [`Self::flush`]; returns the bytes that it takes.
    pub fn stage(&mut self, vector: &[f32]) -> Result<usize> {
        let mut values = vector.to_vec();
        values.resize(padded(self.dims), 0.0);
        let mut blocks = Vec::new();
        quant::quantize(self.dtype, &values, &mut blocks)?;
        self.stage_blocks(&blocks)
    }

    /// Adds a row of GGML's blocks, as [`Self::stage`].
    pub fn stage_blocks(&mut self, blocks: &[u8]) -> Result<usize> {
        if self.room() == 0 {
            return Err(Error::shape("part of an index: no room"));
        }
        let (start, bytes) = (self.staged.len(), row_bytes(self.dims, self.dtype));
        self.staged.resize(start + bytes, 0);
        let packed = layout::pack_row(self.dtype, blocks, &mut self.staged[start..]);
        if packed.is_err() {
            self.staged.truncate(start);
        }
        packed?;
        self.rows += 1;
        Ok(bytes)
    }

    /// Marks a row; false where it was.
    pub fn remove(&mut self, row: usize) -> bool {
        let before = self.is_removed(row);
        self.removed[row / 32] |= 1 << (row % 32);
        self.removed_changed |= !before;
        !before
    }

    /// Writes what has changed to the GPU, before whatever is submitted next.
    pub fn flush(&mut self, context: &Context) {
        if !self.staged.is_empty() {
            let bytes = row_bytes(self.dims, self.dtype);
            let offset = self.rows * bytes - self.staged.len();
            context.write(&self.vectors, offset as u64, &self.staged);
            self.staged.clear();
        }
        if std::mem::take(&mut self.removed_changed) {
            context.write(&self.removed_buffer, 0, bytemuck::cast_slice(&self.removed));
        }
    }

    /// GGML's blocks of some rows, `padded` values each, as they are on the GPU.
    pub async fn read(&self, context: &Context, start: usize, count: usize) -> Result<Vec<Vec<u8>>> {
        let bytes = row_bytes(self.dims, self.dtype);
        let packed = context.read(&self.vectors, (start * bytes) as u64, (count * bytes) as u64).await?;
        packed.chunks_exact(bytes).map(|row| layout::unpack_row(self.dtype, padded(self.dims), row)).collect()
    }
}
