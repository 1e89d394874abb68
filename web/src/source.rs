//! A model's bytes, read by JavaScript: a URL's ranges, a file, a file of the origin's private file system.

use std::borrow::Cow;

use anygpu::format::source::{BoxFuture, ByteSource};
use anygpu::{Error, Result};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::error::from_js;

#[wasm_bindgen]
extern "C" {
    /// What `source.js` opens.
    pub type JsSource;

    /// Length in bytes.
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsSource) -> f64;

    /// A promise of a `Uint8Array` of `length` bytes from `offset`.
    #[wasm_bindgen(method, catch)]
    fn read(this: &JsSource, offset: f64, length: f64) -> std::result::Result<js_sys::Promise, JsValue>;
}

/// The same as a source of this crate.
pub struct Source {
    js: JsSource,
    bytes: u64,
}

impl Source {
    pub fn new(js: JsSource) -> Self {
        // JavaScript's integers are exact up to 2^53.
        let bytes = js.size() as u64;
        Self { js, bytes }
    }
}

impl ByteSource for Source {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Cow<'_, [u8]>>> {
        Box::pin(async move {
            if offset.checked_add(len as u64).is_none_or(|end| end > self.bytes) {
                let total = self.bytes;
                return Err(Error::format(format!(
                    "bytes {offset} and {len} more: expected a range within the {total} bytes there are"
                )));
            }
            if len == 0 {
                return Ok(Cow::Borrowed(&[][..]));
            }
            let promise = self.js.read(offset as f64, len as f64).map_err(|error| from_js(&error))?;
            let read = JsFuture::from(promise).await.map_err(|error| from_js(&error))?;
            let read: js_sys::Uint8Array = read.unchecked_into();
            let found = read.length();
            if found as usize != len {
                return Err(Error::io(format!("bytes from {offset}: found {found}, expected {len}")));
            }
            Ok(Cow::Owned(read.to_vec()))
        })
    }
}
