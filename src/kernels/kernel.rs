//! [`Kernel`]: what a plan, a test and a person need to know of one dispatch.

use std::fmt;

use super::host::Host;
use crate::error::{Error, Result};
use crate::format::source::{MaybeSend, MaybeSync};
use crate::gpu::Access;
use crate::profile::Profile;
use crate::shader::Spec;
use crate::tensor::Tensor;

/// A tensor in group 0 and how the shader uses it.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The tensor.
    pub tensor: Tensor,
    /// How it is used.
    pub access: Access,
}

/// An input binding.
pub fn read(tensor: &Tensor) -> Binding {
    Binding { tensor: tensor.clone(), access: Access::Read }
}

/// An output binding, also where the shader reads it as well.
pub fn write(tensor: &Tensor) -> Binding {
    Binding { tensor: tensor.clone(), access: Access::Write }
}

/// The bytes of a shader's `Params` and its members' names, for the test that compares them with the WGSL.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// The struct's bytes.
    pub bytes: Vec<u8>,
    /// Name, offset and WGSL type of each member.
    pub members: &'static [(&'static str, usize, &'static str)],
}

/// Declares a `Params` struct whose members are all four bytes wide (`u32`, `i32`, `f32`), as its WGSL twin is.
#[macro_export]
#[doc(hidden)]
macro_rules! params {
    ($(#[$doc:meta])* struct $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ident),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        struct $name { $($(#[$fdoc])* $field: $ty),* }

        impl From<$name> for $crate::kernels::Params {
            fn from(params: $name) -> Self {
                const MEMBERS: &[(&str, usize, &str)] =
                    &[$((stringify!($field), std::mem::offset_of!($name, $field), stringify!($ty))),*];
                Self { bytes: bytemuck::bytes_of(&params).to_vec(), members: MEMBERS }
            }
        }
    };
}

/// One dispatch: its arguments, the shader it needs, and the same computation in plain Rust.
pub trait Kernel: fmt::Debug + MaybeSend + MaybeSync {
    /// The shader's file stem.
    fn name(&self) -> &'static str;

    /// Whether the arguments fit together.
    ///
    /// # Errors
    /// `Shape`, naming the argument, what was found and what was expected.
    fn check(&self) -> Result<()>;

    /// Whether a device can run it at all, in whatever variant.
    fn runs_on(&self, _profile: &Profile) -> bool {
        true
    }

    /// The specialised shader for a device; depends on nothing else.
    fn spec(&self, profile: &Profile) -> Spec;

    /// The uniform parameters.
    fn params(&self) -> Params;

    /// Workgroups in each dimension; `context` is an upper bound of the positions that this replay attends to.
    fn grid(&self, profile: &Profile, context: usize) -> [u32; 3];

    /// The tensors of group 0, in order.
    fn bindings(&self) -> Vec<Binding>;

    /// The same computation on the CPU, sums in double precision.
    ///
    /// # Errors
    /// `Shape` where the host memory lacks a tensor.
    fn reference(&self, host: &mut Host) -> Result<()>;
}

/// Workgroups for `count` pieces of work in at most `limit` a dimension: x is filled first; the shader computes its
/// index as `id.x + id.y * num_workgroups.x` and leaves out what lies past `count`.
pub fn linear_grid(count: usize, profile: &Profile) -> [u32; 3] {
    let limit = profile.limits.max_workgroups_per_dimension.max(1) as usize;
    let x = count.min(limit).max(1);
    [x as u32, count.div_ceil(x).max(1) as u32, 1]
}

/// An error unless `found == expected`.
///
/// # Errors
/// `Shape`, naming the kernel and the argument.
pub fn expect_shape(kernel: &str, argument: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::shape(format!("{kernel}: {argument} has shape {found:?}, expected {expected:?}")))
}

/// An error unless `holds`.
///
/// # Errors
/// `Shape`, with the kernel's name before the message.
pub fn expect(kernel: &str, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::shape(format!("{kernel}: {}", message()))) }
}
