//! The bodies of the fuzz targets of `xtask/fuzz`, here so that the ordinary tests run them too, over the committed
//! corpus. Each takes any bytes and panics where a property does not hold; no part of the public interface.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::dtype::DType;
use crate::error::{ErrorKind, Result};
use crate::format::gguf::{Gguf, Writer};
use crate::quant;

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
