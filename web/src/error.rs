//! Errors on their way to and from JavaScript: an `Error` whose `name` is the kind.

use anygpu::{Error, ErrorKind};
use wasm_bindgen::{JsCast, JsValue};

const KINDS: [ErrorKind; 9] = [
    ErrorKind::Format,
    ErrorKind::Unsupported,
    ErrorKind::Shape,
    ErrorKind::Adapter,
    ErrorKind::OutOfMemory,
    ErrorKind::DeviceLost,
    ErrorKind::Tokenizer,
    ErrorKind::Io,
    ErrorKind::Cancelled,
];

/// A JavaScript `Error`.
pub fn to_js(error: &Error) -> JsValue {
    let js = js_sys::Error::new(&error.to_string());
    js.set_name(&format!("{:?}", error.kind()));
    js.into()
}

/// What JavaScript threw: the kind by its name, `Io` for any other.
pub fn from_js(thrown: &JsValue) -> Error {
    let Some(error) = thrown.dyn_ref::<js_sys::Error>() else { return Error::io(format!("{thrown:?}")) };
    let (name, message) = (String::from(error.name()), String::from(error.message()));
    match KINDS.into_iter().find(|kind| format!("{kind:?}") == name) {
        Some(kind) => Error::new(kind, message),
        None if name == "AbortError" => Error::cancelled(message),
        None => Error::io(format!("{name}: {message}")),
    }
}

/// The error for options that do not read.
pub fn bad_options(error: &serde_json::Error) -> Error {
    Error::shape(format!("options: {error}"))
}
