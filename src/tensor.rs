//! [`Tensor`]: a range of a buffer with a shape and an element format. No arithmetic: that is what kernels are for.
//!
//! ```
//! use anygpu::tensor::{Storage, Tensor};
//! use anygpu::DType;
//!
//! let rows = Tensor::new(Storage::Activation(0), 0, DType::F32, [8, 64]);
//! let tail = rows.slice(6, 2).unwrap();
//! assert_eq!((tail.shape(), tail.offset(), tail.bytes()), (&[2, 64][..], 6 * 256, 2 * 256));
//! assert!(rows.slice(7, 2).is_none());
//! ```

use crate::dtype::DType;
use crate::gpu::Buffer;
use crate::layout;

/// What holds a tensor's bytes.
#[derive(Clone, Debug)]
pub enum Storage {
    /// A buffer that lives outside plans: weights, caches, state.
    Buffer(Buffer),
    /// An activation of the plan being built, by number; the plan decides where it lies.
    Activation(u32),
}

impl Storage {
    /// A number that tells storages apart within a plan.
    pub fn key(&self) -> u64 {
        match self {
            Storage::Buffer(buffer) => buffer.id(),
            Storage::Activation(id) => u64::from(*id),
        }
    }
}

/// A range of a buffer, its shape (outermost first) and element format. Weights lie row by row as [`crate::layout`] says.
#[derive(Clone, Debug)]
pub struct Tensor {
    storage: Storage,
    offset: u64,
    dtype: DType,
    shape: Vec<usize>,
}

impl Tensor {
    /// A tensor at `offset` bytes into `storage`.
    pub fn new(storage: Storage, offset: u64, dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Self { storage, offset, dtype, shape: shape.into() }
    }

    /// What holds the bytes.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// First byte within the storage.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Element format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows: all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Elements of a row: the last dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        match self.dtype {
            DType::F32 | DType::U32 => 4 * self.len() as u64,
            dtype => self.rows() as u64 * layout::row_bytes(dtype, self.cols()) as u64,
        }
    }

    /// The same bytes in another shape of as many elements; `None` where the numbers differ.
    pub fn reshape(&self, shape: impl Into<Vec<usize>>) -> Option<Self> {
        let shape = shape.into();
        (shape.iter().product::<usize>() == self.len()).then(|| Self { shape, ..self.clone() })
    }

    /// Rows `start..start + count` of the first dimension; `None` past the end.
    pub fn slice(&self, start: usize, count: usize) -> Option<Self> {
        let (&first, rest) = self.shape.split_first()?;
        let end = start.checked_add(count)?;
        if end > first {
            return None;
        }
        let mut shape = vec![count];
        shape.extend_from_slice(rest);
        let per_row = self.bytes() / (first.max(1) as u64);
        Some(Self { shape, offset: self.offset + start as u64 * per_row, ..self.clone() })
    }
}
