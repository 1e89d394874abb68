//! Encoders of the BERT family: MiniLM, BGE, E5, GTE and others of their shape, from safetensors or GGUF (`bert`).
//!
//! ```text
//! x = layer_norm(token_embd[token] + position_embd[position] + token_types[0])
//! for each layer:
//!     q, k, v = x · Wᵀ + b;  x = layer_norm(x + attention(q, k, v) · attn_outputᵀ + b)
//!     x = layer_norm(x + gelu(x · ffn_upᵀ + b) · ffn_downᵀ + b)
//! vector = pool(x), divided by its length
//! ```
//!
//! Texts are packed: their rows lie one behind the other, and a row attends to the rows of its own text.

#[cfg(feature = "burn-inference")]
pub mod burn;
pub mod config;
pub mod file;
pub mod plan;
pub mod reference;
#[doc(hidden)]
pub mod testing;

pub use config::{Config, Pooling};
pub use reference::Reference;

#[cfg(test)]
mod tests;
