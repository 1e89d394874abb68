//! From WGSL files to the source of one specialised shader.
//!
//! [`library`] holds the files of `shaders/`; a [`Spec`] says how a kernel is specialised and renders its source, with
//! `preprocess` following imports and conditions.

pub mod library;
mod preprocess;
#[cfg(test)]
pub(crate) mod reflect;
mod spec;

pub use spec::{Const, Flag, Flags, Spec, Target};
