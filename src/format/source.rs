//! [`ByteSource`]: a range of bytes out of memory, a mapped file, a browser's Blob or a URL.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use crate::error::{Error, Result};

/// `Send` natively; nothing in the browser, whose objects stay on their thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + ?Sized> MaybeSend for T {}
/// `Send` natively; nothing in the browser, whose objects stay on their thread.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSend {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSend for T {}

/// `Sync` natively; nothing in the browser.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSync: Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Sync + ?Sized> MaybeSync for T {}
/// `Sync` natively; nothing in the browser.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSync {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSync for T {}

/// A boxed future, `Send` where threads are.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed future, `Send` where threads are.
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Bytes that can be read by range, again and again: after a lost device a model is loaded from its source anew.
pub trait ByteSource: MaybeSend + MaybeSync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads `len` bytes from `offset`; borrowed where the source is memory, so that a mapped file is not copied.
    ///
    /// # Errors
    /// `Format` where the range ends past the source's end; `Io` where reading fails.
    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Cow<'_, [u8]>>>;
}

/// Returns the range as `usize`s if it lies within `total` bytes.
fn checked_range(offset: u64, len: usize, total: u64) -> Result<std::ops::Range<usize>> {
    offset
        .checked_add(len as u64)
        .filter(|&end| end <= total)
        .and_then(|end| Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?))
        .ok_or_else(|| {
            Error::format(format!("bytes {offset} and {len} more: expected a range within the {total} bytes there are"))
        })
}

/// Bytes in memory.
impl ByteSource for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Cow<'_, [u8]>>> {
        let bytes = checked_range(offset, len, self.len() as u64).map(|range| Cow::Borrowed(&self[range]));
        Box::pin(std::future::ready(bytes))
    }
}

/// A file mapped into memory.
#[cfg(not(target_arch = "wasm32"))]
pub struct MappedFile {
    map: memmap2::Mmap,
}

#[cfg(not(target_arch = "wasm32"))]
impl MappedFile {
    /// Maps the file at `path`. It must not be changed while the map lives: as with every memory map, the bytes read
    /// would change under the reader.
    ///
    /// # Errors
    /// `Io`, naming the path.
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let named = |error: std::io::Error| Error::from(error).context(path.display());
        let file = std::fs::File::open(path).map_err(named)?;
        if file.metadata().map_err(named)?.is_dir() {
            return Err(Error::io("found a folder, expected a file").context(path.display()));
        }
        // SAFETY: the map is only read, as plain bytes; a writer elsewhere could change them, which every parser here
        // must survive anyway since files are not trusted.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(named)?;
        Ok(Self { map })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl ByteSource for MappedFile {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Cow<'_, [u8]>>> {
        let bytes = checked_range(offset, len, self.len()).map(|range| Cow::Borrowed(&self.map[range]));
        Box::pin(std::future::ready(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_past_the_end_are_errors() {
        let source = vec![1u8, 2, 3, 4];
        assert_eq!(pollster::block_on(source.read(1, 2)).unwrap().as_ref(), [2, 3]);
        for (offset, len) in [(0, 5), (4, 1), (u64::MAX, 1), (u64::MAX, usize::MAX)] {
            let error = pollster::block_on(source.read(offset, len)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Format);
        }
    }
}
