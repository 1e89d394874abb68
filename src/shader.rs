//! From WGSL files to the source of one specialised shader.
//!
//! [`library`] holds the files of `shaders/`; a [`Spec`] says how a kernel is specialised and renders its source, with
//! `preprocess` following imports and conditions.
//!
//! ```
//! use anygpu::shader::{Spec, Target};
//!
//! let source = Spec::new("copy", Target::Native).constant("WORKGROUP", 64u32).render()?;
//! assert!(source.contains("const WORKGROUP") && source.contains("fn main("));
//! # Ok::<(), anygpu::Error>(())
//! ```

pub mod library;
mod preprocess;
#[cfg(test)]
pub(crate) mod reflect;
mod spec;

#[cfg(feature = "burn-inference")]
pub(crate) use spec::writable;
pub use spec::{Const, Flag, Flags, Spec, Target};

/// The index of a shader's parameters in group 0, behind more tensors than any kernel has. One group for all: a second one, at
/// a dynamic offset, costs browsers about a microsecond a dispatch.
pub(crate) const PARAMS: u32 = 15;
