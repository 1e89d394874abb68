//! Reading a header piece by piece from a source that is asked for as little as it takes.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::format::ByteSource;

/// First chunk read; each further one is at least twice as long, up to [`MAX_CHUNK`], or what an item needs.
const FIRST_CHUNK: u64 = 64 << 10;
const MAX_CHUNK: u64 = 4 << 20;

/// Why an item could not be parsed.
#[derive(Debug)]
pub(super) enum Stop {
    /// The window ends too early: the item needs at least this many bytes, which the file has.
    More(u64),
    /// The file is wrong.
    Wrong(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Wrong(error)
    }
}

impl Stop {
    /// Leads an error's message by what was being read.
    pub(super) fn context(self, context: impl FnOnce() -> String) -> Self {
        match self {
            Stop::More(bytes) => Stop::More(bytes),
            Stop::Wrong(error) => Stop::Wrong(error.context(context())),
        }
    }
}

/// A window on the source, moved forward item by item.
pub(super) struct Reader<'a> {
    source: &'a dyn ByteSource,
    window: Cow<'a, [u8]>,
    /// Where the window starts, from the file's start.
    window_start: u64,
    /// Where the next item starts, from the file's start.
    position: u64,
    chunk: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a dyn ByteSource) -> Self {
        Self { source, window: Cow::Borrowed(&[]), window_start: 0, position: 0, chunk: FIRST_CHUNK }
    }

    /// Bytes from the file's start to the next item.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Parses the next item. Where the window ends within it, a longer one is read and the item parsed again; the
    /// window at least doubles each time, so that an item is parsed in time linear in its length.
    pub(super) async fn item<T>(&mut self, parse: impl Fn(&mut Cursor<'_>) -> Result<T, Stop>) -> Result<T> {
        loop {
            let bytes = &self.window[(self.position - self.window_start) as usize..];
            let left = self.source.len() - self.position;
            let mut cursor = Cursor { bytes, at: 0, start: self.position, left };
            let needed = match parse(&mut cursor) {
                Ok(item) => {
                    self.position += cursor.at as u64;
                    return Ok(item);
                }
                Err(Stop::Wrong(error)) => return Err(error),
                Err(Stop::More(needed)) => needed,
            };
            let wanted = needed.max(2 * bytes.len() as u64).max(self.chunk).min(left);
            let len = usize::try_from(wanted).map_err(|_| {
                Error::unsupported(format!("{wanted} bytes of header: more than this machine addresses"))
            })?;
            self.window = self.source.read(self.position, len).await?;
            if self.window.len() != len {
                let found = self.window.len();
                return Err(Error::io(format!("offset {}: read {found} bytes, expected {len}", self.position)));
            }
            self.window_start = self.position;
            self.chunk = (2 * self.chunk).min(MAX_CHUNK);
        }
    }
}

/// The bytes of one item, as far as they have been read.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where `bytes` starts, from the file's start.
    start: u64,
    /// Bytes from `bytes`' start to the file's end.
    left: u64,
}

impl<'a> Cursor<'a> {
    /// Bytes between here and the file's end.
    pub(super) fn remaining(&self) -> u64 {
        self.left - self.at as u64
    }

    /// Makes sure that the next `len` bytes have been read.
    pub(super) fn need(&self, len: u64, what: &str) -> Result<(), Stop> {
        let remaining = self.remaining();
        if len > remaining {
            let offset = self.start + self.at as u64;
            return Err(Error::format(format!(
                "{what} at byte {offset}: needs {len} bytes, found {remaining} before the file's end"
            ))
            .into());
        }
        if len > (self.bytes.len() - self.at) as u64 {
            return Err(Stop::More(self.at as u64 + len));
        }
        Ok(())
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], Stop> {
        self.need(len, what)?;
        let end = self.at + len as usize;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    /// The next `len` bytes or as many as the file has, not moving on.
    pub(super) fn peek(&self, len: u64) -> Result<&'a [u8], Stop> {
        let len = len.min(self.remaining());
        self.need(len, "the start")?;
        Ok(&self.bytes[self.at..self.at + len as usize])
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Stop> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A string of `min` to `max` bytes.
    pub(super) fn string(&mut self, min: u64, max: u64) -> Result<String, Stop> {
        let len = self.u64("a string's length")?;
        if len < min || len > max {
            return Err(Error::format(format!("string of {len} bytes: expected {min} to {max}")).into());
        }
        let bytes = self.take(len, "a string")?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let at = error.valid_up_to();
                Err(Error::format(format!("string of {len} bytes: byte {at} is not UTF-8, expected UTF-8")).into())
            }
        }
    }
}
