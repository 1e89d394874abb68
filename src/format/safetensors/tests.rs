use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

fn open(bytes: Vec<u8>) -> Result<Safetensors> {
    pollster::block_on(Safetensors::open(Arc::new(bytes)))
}

fn file(json: &str, data: usize) -> Vec<u8> {
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json.as_bytes());
    out.resize(out.len() + data, 7);
    out
}

#[test]
fn what_is_written_is_read() {
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let tensors = [
        ("b", Element::F16, vec![2, 3]),
        ("a", Element::I64, vec![]),
        ("none", Element::F32, vec![0, 4]),
        ("c", Element::U8, vec![3]),
    ];
    let mut bytes = header(&tensors, &metadata).unwrap();
    assert!(bytes.len().is_multiple_of(8));
    let data = bytes.len() as u64;
    bytes.extend([1; 12 + 8 + 3]);
    let found = open(bytes).unwrap();
    assert_eq!(found.metadata(), &metadata);
    let mut offset = data;
    for (name, element, shape) in tensors {
        let info = found.tensor(name).unwrap();
        assert_eq!((info.element, &info.shape, info.offset), (element, &shape, offset), "{name}");
        offset += info.bytes;
    }
    assert_eq!(found.expect("b", Element::F16, &[None, Some(3)]).unwrap().bytes, 12);
    let error = found.expect("b", Element::F32, &[None, Some(3)]).unwrap_err();
    assert_eq!(error.to_string(), "safetensors: tensor b: found F16 [2, 3], expected F32 [any, 3]");
    assert!(header(&[("x", Element::F32, vec![u64::MAX, 2])], &metadata).is_err());
    assert!(header(&[("x", Element::U8, vec![1]), ("x", Element::U8, vec![1])], &metadata).is_err());
}

#[test]
fn hostile_files_are_refused() {
    let f32_at = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"t":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    for (bytes, kind, expected) in [
        (vec![], ErrorKind::Format, "0 bytes: expected at least 8"),
        (u64::MAX.to_le_bytes().to_vec(), ErrorKind::Format, "header of 18446744073709551615 bytes"),
        (file("{}", 0)[..9].to_vec(), ErrorKind::Format, "header of 2 bytes: expected at most"),
        (file("[]", 0), ErrorKind::Format, "header: invalid type"),
        (file("{\"t\":1}", 0), ErrorKind::Format, "header: invalid type"),
        (file("{} x", 0), ErrorKind::Format, "header: trailing"),
        (file("{}", 4), ErrorKind::Format, "data: tensors end at byte 10"),
        (file(&f32_at("[1]", 0, 8), 4), ErrorKind::Format, "tensor t: data_offsets 0 to 8: expected a range within"),
        (file(&f32_at("[1]", 4, 0), 4), ErrorKind::Format, "tensor t: data_offsets 4 to 0"),
        (file(&f32_at("[1]", 0, u64::MAX), 4), ErrorKind::Format, "tensor t: data_offsets"),
        (file(&f32_at("[2]", 0, 4), 4), ErrorKind::Format, "tensor t: 4 bytes: expected 8, those of F32 [2]"),
        (
            file(&f32_at("[4294967296,4294967296]", 0, 0), 0),
            ErrorKind::Format,
            "tensor t: 0 bytes: expected more than 2^64",
        ),
        (file(&f32_at("[1,1,1,1,1,1,1,1,1]", 0, 4), 4), ErrorKind::Format, "tensor t: 9 dimensions"),
        (file(&f32_at("[1]", 4, 8), 8), ErrorKind::Format, "tensor t: starts at byte 4 of the data, expected 0"),
        (file(&f32_at("[1]", 0, 4).replace("F32", "Q9"), 4), ErrorKind::Unsupported, "tensor t: elements \"Q9\""),
        (
            file(
                r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                2,
            ),
            ErrorKind::Format,
            "tensor t: found twice",
        ),
        (
            file(
                r#"{"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"u":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                3,
            ),
            ErrorKind::Format,
            "tensor u: starts at byte 1 of the data, expected 2",
        ),
    ] {
        let error = open(bytes).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(expected), "found {error}, expected {expected}");
    }
}

proptest! {
    /// Whatever the bytes, there is an answer or an error, and a tensor lies in the file.
    #[test]
    fn any_bytes_are_answered(mut bytes in prop::collection::vec(any::<u8>(), 0..200), start in any::<bool>()) {
        if start {
            let mut whole = file(r#"{"t":{"dtype":"F16","shape":[3],"data_offsets":[0,6]}}"#, 6);
            let at = bytes.len() % whole.len();
            if let Some(&byte) = bytes.first() {
                whole[at] ^= byte;
            }
            bytes = whole;
        }
        let total = bytes.len() as u64;
        if let Ok(file) = open(bytes) {
            prop_assert!(file.tensors().all(|tensor| tensor.offset + tensor.bytes <= total));
        }
    }
}
