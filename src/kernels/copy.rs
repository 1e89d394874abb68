//! `y = x`: the bandwidth that other kernels' are a share of.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, read, write};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

/// A copy.
#[derive(Clone, Debug)]
pub struct Copy {
    /// `x[N]`, N a multiple of 4.
    pub x: Tensor,
    /// `y[N]`.
    pub y: Tensor,
}

params! {
    struct Uniform { count: u32 }
}

impl Kernel for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn check(&self) -> Result<()> {
        expect("copy", self.x.len() == self.y.len() && self.x.len().is_multiple_of(4), || {
            format!("{} and {} elements, expected as many, a multiple of 4", self.x.len(), self.y.len())
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let workgroup = profile.limits.max_workgroup_invocations.min(256);
        Spec::new("copy", Target::of(profile)).constant("WORKGROUP", workgroup).trusted()
    }

    fn params(&self) -> Params {
        Uniform { count: (self.x.len() / 4) as u32 }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        let limit = profile.limits.max_workgroups_per_dimension as usize;
        linear_grid((self.x.len() / 4).div_ceil(256).min(limit), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.x), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let x = host.floats(&self.x)?;
        host.set(&self.y, &x)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    [4usize, 1000, 4096]
        .into_iter()
        .map(|len| {
            let mut builder = CaseBuilder::new(len as u64);
            let x = builder.random(&[len]);
            let y = builder.output(&[len], Compare::Exact);
            builder.case(format!("{len}"), Copy { x, y })
        })
        .collect()
}
