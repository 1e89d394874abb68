//! The GPU below everything else: adapters, a device with its queue, buffers, pipelines, read-back and timing.
//! Only this module and `plan` speak wgpu.
//!
//! ```
//! # pollster::block_on(async {
//! use anygpu::gpu::{Adapter, Context};
//!
//! let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
//! let buffer = context.buffer_from("four bytes", &[1, 2, 3, 4])?;
//! assert_eq!(context.read(&buffer, 0, 4).await?, [1, 2, 3, 4]);
//! assert!(context.memory().current_bytes() >= 4);
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

pub mod adapter;
pub mod buffer;
pub mod context;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod disk;
pub mod pipeline;
pub mod readback;
pub mod timing;
pub(crate) mod upload;

pub use adapter::{Adapter, AdapterOptions};
pub use buffer::Buffer;
pub use context::Context;
pub use pipeline::{Access, Pipeline};
pub use readback::Readback;
