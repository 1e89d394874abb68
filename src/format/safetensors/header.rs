//! The JSON header, in the order of the file and with every entry, so that a name that occurs twice is seen.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::{Element, TensorInfo};
use crate::error::{Error, Result};

/// Dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<(String, Entry)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Header> {
    serde_json::from_slice(bytes).map_err(|error| Error::format(format!("header: {error}")))
}

impl Entry {
    /// The tensor in a file of `total` bytes whose data start at `data`.
    pub fn place(self, name: &str, data: u64, total: u64) -> Result<TensorInfo> {
        let element = Element::by_name(&self.dtype).ok_or_else(|| {
            Error::unsupported(format!("elements {:?}: expected one of F32, F16, BF16, …", self.dtype))
        })?;
        if self.shape.len() > MAX_DIMENSIONS {
            let found = self.shape.len();
            return Err(Error::format(format!("{found} dimensions: expected at most {MAX_DIMENSIONS}")));
        }
        let expected = self.shape.iter().try_fold(element.bytes(), |bytes, &size| bytes.checked_mul(size));
        let [start, end] = self.data_offsets;
        let inside = end.checked_add(data).is_some_and(|end| end <= total);
        if start > end || !inside {
            return Err(Error::format(format!(
                "data_offsets {start} to {end}: expected a range within the {} bytes of data",
                total - data
            )));
        }
        let bytes = end - start;
        if expected != Some(bytes) {
            let wanted = expected.map_or("more than 2^64".to_owned(), |n| n.to_string());
            return Err(Error::format(format!(
                "{bytes} bytes: expected {wanted}, those of {} {:?}",
                element.name(),
                self.shape
            )));
        }
        Ok(TensorInfo { name: name.to_owned(), element, shape: self.shape, offset: data + start, bytes })
    }
}
