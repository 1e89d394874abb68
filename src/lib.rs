//! Language and embedding models on any GPU, natively (Vulkan, Metal, DX12) and in the browser, from hand-written WGSL.
//!
//! ```text
//! ByteSource -> format -> tensors -> models (write a Plan) -> Plan of Steps -> replay -> tokens -> text
//!                                                                                     -> vectors -> search
//! ```
#![warn(missing_docs)]

#[cfg(test)]
mod architecture;
pub mod chat;
pub mod dtype;
pub mod embed;
pub mod error;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
pub mod generate;
pub mod gpu;
pub mod kernels;
pub mod layout;
pub mod models;
pub mod plan;
pub mod profile;
pub mod quant;
pub mod rope;
pub mod scheduler;
pub mod search;
pub mod shader;
pub mod tensor;
pub mod tokenizer;
#[cfg(not(target_arch = "wasm32"))]
pub mod trial;

pub use dtype::DType;
pub use error::{Error, ErrorKind, Result};

/// The examples of README.md, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
