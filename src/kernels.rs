//! Kernels: each one WGSL file in `shaders/`, one Rust file here, one word in the list below.
//!
//! # How to add a kernel
//!
//! 1. `shaders/NAME.wgsl`: one entry point `main`; tensors in group 0 (inputs, then outputs), each binding line ending in a
//!    comment with its shape; `struct Params` at binding 15. Constants that choose a variant come from the header that
//!    [`Spec`](crate::shader::Spec) renders, never from text substitution.
//! 2. `src/kernels/NAME.rs`, in this order: the formula; the struct of arguments with their shapes; `impl Kernel`; tests.
//! 3. The word `NAME` in `kernels!` below. Its [`Case`]s then run in `anygpu check` and in the tests, on every profile.
//!
//! ```
//! // Every kernel against its reference on this machine's adapter, or one of them:
//! # pollster::block_on(async {
//! use anygpu::gpu::{Adapter, Context};
//!
//! let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
//! for case in anygpu::kernels::copy::cases() {
//!     let outcome = case.run(&context, None).await?;
//!     assert_eq!(outcome.failure, None, "{}", outcome.name);
//! }
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

pub mod attention;
pub mod cache;

pub mod host;
pub mod kernel;
pub mod normed;
pub mod packed;
pub mod q8;
pub mod ranking;
pub mod testing;

pub use host::Host;
pub use kernel::{Binding, Kernel, Params};
pub use testing::Case;

use crate::profile::Profile;

macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*

        /// The test cases of every kernel, in the order of the list.
        pub fn cases() -> Vec<Case> {
            let mut cases = Vec::new();
            $(cases.extend($name::cases());)*
            cases
        }

        /// Those that a device can run.
        pub fn cases_for(profile: &Profile) -> Vec<Case> {
            cases().into_iter().filter(|case| case.kernel.runs_on(profile)).collect()
        }
    };
}

kernels! {
    add_bias,
    copy,
    embed,
    rms_norm,
    sample,
    matmul,
    matvec,
    matvec_residual,
    matvec_swiglu,
    swiglu,
    synthetic,
    rope_cache,
    attention_decode,
    attention_merge,
    attention_prefill,
    layer_norm,
    attention_packed,
    pool,
    scan,
    group_best,
    top_k,
    rescore,
}

#[cfg(test)]
mod tests;
