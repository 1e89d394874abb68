//! Architecture `llama` of GGUF: Llama 2, 3, 3.1 and 3.2, Mistral, TinyLlama, SmolLM and others of their shape.
//!
//! ```text
//! x = token_embd[token]
//! for each layer:
//!     h = rms_norm(x) · attn_norm;  q, k, v = h · Wᵀ (+ bias);  rope(q, k);  x += attention(q, cache) · attn_outputᵀ
//!     h = rms_norm(x) · ffn_norm;   x += (silu(h · ffn_gateᵀ) ⊙ (h · ffn_upᵀ)) · ffn_downᵀ
//! logits = (rms_norm(x) · output_norm) · outputᵀ
//! ```

#[cfg(feature = "burn-inference")]
pub mod burn;
pub mod config;
pub mod plan;
pub mod reference;
#[doc(hidden)]
pub mod testing;

pub use config::Config;
pub use reference::Reference;

#[cfg(test)]
mod tests;
