//! What the programs of this package share.
#![warn(missing_docs)]

pub mod cli;
pub mod clip;
pub mod cpu;
pub mod shipped;
