//! The GPU below everything else: adapters, a device with its queue, buffers, pipelines, read-back and timing.
//! Only this module and `plan` speak wgpu.

pub mod adapter;
pub mod buffer;
pub mod context;
pub mod pipeline;
pub mod readback;
pub mod timing;

pub use adapter::{Adapter, AdapterOptions};
pub use buffer::Buffer;
pub use context::Context;
pub use pipeline::{Access, Pipeline};
pub use readback::Readback;
