//! Files of weights: where their bytes come from ([`source`]) and how they are laid out.

pub mod gguf;
pub mod metadata;
pub mod safetensors;
pub mod source;

pub use gguf::Gguf;
pub use metadata::{Metadata, Value};
pub use safetensors::Safetensors;
pub use source::ByteSource;
