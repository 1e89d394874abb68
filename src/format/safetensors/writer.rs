//! Writing a header; the data follow it, tensor by tensor in the same order.

use std::collections::BTreeMap;

use serde_json::json;

use super::Element;
use crate::error::{Error, Result};

/// The bytes in front of the data of these tensors, `(name, elements, shape)`: the header with its length, padded so that
/// the data start at a multiple of 8. The data of each tensor follow in this order, with nothing between.
///
/// # Errors
/// `Shape` where sizes overflow or a name occurs twice.
pub fn header(tensors: &[(&str, Element, Vec<u64>)], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut start = 0u64;
    for (name, element, shape) in tensors {
        let bytes = shape.iter().try_fold(element.bytes(), |bytes, &size| bytes.checked_mul(size));
        let end = bytes
            .and_then(|bytes| start.checked_add(bytes))
            .ok_or_else(|| Error::shape(format!("tensor {name}: shape {shape:?}, expected fewer than 2^64 bytes")))?;
        let entry = json!({ "dtype": element.name(), "shape": shape, "data_offsets": [start, end] });
        if entries.insert((*name).to_owned(), entry).is_some() || *name == "__metadata__" {
            return Err(Error::shape(format!("tensor {name}: named twice, expected once")));
        }
        start = end;
    }
    let mut text = serde_json::Value::Object(entries).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text.as_bytes());
    Ok(out)
}
