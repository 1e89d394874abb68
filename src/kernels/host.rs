//! [`Host`]: the CPU's picture of the buffers that kernels work on, for references.

use std::collections::HashMap;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout;
use crate::quant;
use crate::tensor::Tensor;

/// Storages by key, as bytes. References read and write it as shaders do the GPU's buffers.
#[derive(Clone, Debug, Default)]
pub struct Host {
    storages: HashMap<u64, Vec<u8>>,
}

impl Host {
    /// Sets a whole storage.
    pub fn insert(&mut self, key: u64, bytes: Vec<u8>) {
        self.storages.insert(key, bytes);
    }

    /// The bytes of a whole storage.
    pub fn storage(&self, key: u64) -> Option<&[u8]> {
        self.storages.get(&key).map(Vec::as_slice)
    }

    fn range(&self, tensor: &Tensor) -> Result<std::ops::Range<usize>> {
        let (start, bytes) = (tensor.offset() as usize, tensor.bytes() as usize);
        let found = self.storages.get(&tensor.storage().key()).map_or(0, Vec::len);
        if found < start + bytes {
            return Err(Error::shape(format!("host storage: found {found} bytes, expected {}", start + bytes)));
        }
        Ok(start..start + bytes)
    }

    /// A tensor's bytes.
    ///
    /// # Errors
    /// `Shape` where the storage lacks them.
    pub fn bytes(&self, tensor: &Tensor) -> Result<&[u8]> {
        let range = self.range(tensor)?;
        Ok(&self.storages[&tensor.storage().key()][range])
    }

    /// A tensor's bytes, to write.
    ///
    /// # Errors
    /// `Shape` where the storage lacks them.
    pub fn bytes_mut(&mut self, tensor: &Tensor) -> Result<&mut [u8]> {
        let range = self.range(tensor)?;
        match self.storages.get_mut(&tensor.storage().key()) {
            Some(storage) => Ok(&mut storage[range]),
            None => Err(Error::shape("host storage: not found")),
        }
    }

    /// A tensor of 32-bit elements.
    ///
    /// # Errors
    /// `Shape` where the storage lacks them.
    pub fn words<T: bytemuck::Pod>(&self, tensor: &Tensor) -> Result<Vec<T>> {
        Ok(bytemuck::pod_collect_to_vec(self.bytes(tensor)?))
    }

    /// Floats of an f32 tensor, or a weight's values, dequantised: `[rows, cols]`.
    ///
    /// # Errors
    /// `Shape` where the storage lacks them.
    pub fn floats(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        if tensor.dtype() == DType::F32 {
            return self.words(tensor);
        }
        let bytes = self.bytes(tensor)?;
        let mut out = vec![0.0; tensor.len()];
        let row_bytes = layout::row_bytes(tensor.dtype(), tensor.cols());
        for (row, out) in bytes.chunks_exact(row_bytes).zip(out.chunks_exact_mut(tensor.cols())) {
            let row = layout::unpack_row(tensor.dtype(), tensor.cols(), row)?;
            quant::dequantize(tensor.dtype(), &row, out)?;
        }
        Ok(out)
    }

    /// Overwrites a tensor of 32-bit elements.
    ///
    /// # Errors
    /// `Shape` where the numbers of elements differ.
    pub fn set<T: bytemuck::NoUninit>(&mut self, tensor: &Tensor, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let target = self.bytes_mut(tensor)?;
        if target.len() != bytes.len() {
            return Err(Error::shape(format!("host tensor: found {} bytes, expected {}", bytes.len(), target.len())));
        }
        target.copy_from_slice(bytes);
        Ok(())
    }
}
