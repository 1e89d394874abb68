//! anygpu in a browser: what the worker of the npm package (`web/js`) calls.
//!
//! ```text
//! page: index.js <-> worker.js      -> Engine, Embedder, adapter, plan, check (here) -> anygpu -> WebGPU
//!       burn.js  <-> burn-worker.js -> Embedder (here, feature `burn`)               -> Burn   -> WebGPU
//! ```
//!
//! One worker holds at most one [`Engine`] or [`Embedder`]. What only JavaScript can do is asked of a [`Host`](host::Host): reading the
//! model's source, compiling pipelines side by side, telling the page. Numbers, options and results pass as JSON.
//!
//! Natively this crate is empty.
#![warn(missing_docs)]

#[cfg(all(target_arch = "wasm32", feature = "engine"))]
mod bench;
#[cfg(all(target_arch = "wasm32", feature = "engine"))]
mod check;
#[cfg(target_arch = "wasm32")]
mod embedder;
#[cfg(target_arch = "wasm32")]
mod encoder;
#[cfg(all(target_arch = "wasm32", feature = "engine"))]
mod engine;
#[cfg(target_arch = "wasm32")]
mod error;
#[cfg(all(target_arch = "wasm32", feature = "engine"))]
mod generate;
#[cfg(target_arch = "wasm32")]
mod host;
#[cfg(all(target_arch = "wasm32", feature = "engine"))]
mod plan;
#[cfg(target_arch = "wasm32")]
mod recovery;
#[cfg(target_arch = "wasm32")]
mod sha256;
#[cfg(target_arch = "wasm32")]
mod source;

#[cfg(target_arch = "wasm32")]
pub use embedder::Embedder;
#[cfg(all(target_arch = "wasm32", feature = "engine"))]
pub use engine::Engine;
