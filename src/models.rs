//! Architectures: what a file's metadata and tensors must say, and the plain CPU model that every plan is held against.

pub mod bert;
#[cfg(feature = "burn-inference")]
pub mod burn_kernels;
#[cfg(feature = "burn-inference")]
pub mod burn_layers;
pub mod linear;
pub mod llama;
pub mod weights;

/// The values of `general.architecture` that this crate generates text with; `bert` is one that it embeds with.
pub const ARCHITECTURES: [&str; 1] = ["llama"];
