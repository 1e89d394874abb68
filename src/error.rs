//! One error type for the whole library: a kind that a program can match on, and a message for a person.

use std::borrow::Cow;
use std::fmt;

/// What went wrong, for a program to decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file is truncated, contradicts itself, or does not hold what its header says.
    Format,
    /// Well-formed input that needs something this crate does not have: an architecture, a tensor type, a feature.
    Unsupported,
    /// A tensor or argument has the wrong shape or lies out of range.
    Shape,
    /// No usable adapter, or the adapter refused a request.
    Adapter,
    /// The adapter or the host ran out of memory, or a plan would need more than there is.
    OutOfMemory,
    /// The device was lost: unplugged, reset by its driver, or destroyed.
    DeviceLost,
    /// A tokenizer or chat template is missing, broken, or cannot express the input.
    Tokenizer,
    /// Reading or writing failed.
    Io,
    /// The caller cancelled the work.
    Cancelled,
}

/// An error of this crate. Its message names the thing, what was found and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a message for a person.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error, its message led by what was being done: `context: message`.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{context}: {}", self.message).into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, error.to_string())
    }
}

macro_rules! constructors {
    ($($name:ident $kind:ident),* $(,)?) => {
        impl Error {
            $(#[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
            pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

constructors! {
    format Format, unsupported Unsupported, shape Shape, adapter Adapter, out_of_memory OutOfMemory,
    device_lost DeviceLost, tokenizer Tokenizer, io Io, cancelled Cancelled,
}
