//! `y[m, k] = silu(gate[m, k]) · up[m, k]`, `silu(v) = v / (1 + e⁻ᵛ)` (Shazeer 2020).

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, read};
use super::q8::Activations;
use super::rms_norm::{f16_output, q8_output, tiles_output};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

const WORKGROUP: u32 = 64;

/// The gated activation of a feed-forward layer.
#[derive(Clone, Debug)]
pub struct Swiglu {
    /// `x[M, 2·K]`: gate, then up. K is a multiple of 4.
    pub x: Tensor,
    /// `y[M, K]`.
    pub y: Activations,
}

params! {
    struct Uniform { rows: u32 }
}

impl Swiglu {
    fn cols(&self) -> usize {
        self.x.cols() / 2
    }
}

impl Kernel for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn check(&self) -> Result<()> {
        expect("swiglu", self.x.cols().is_multiple_of(8), || {
            format!("x has {} columns, expected a multiple of 8", self.x.cols())
        })?;
        self.y.check("swiglu", "y", self.x.rows(), self.cols())
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = Spec::new("swiglu", Target::of(profile))
            .constant("K", self.cols() as u32)
            .constant("WORKGROUP", WORKGROUP)
            .trusted();
        let spec = self.y.output(spec);
        if self.y.is_q8() { spec.flag(Flag::DOT4) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform { rows: self.x.rows() as u32 }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        let piece = if self.y.is_q8() { 32 } else { 4 };
        linear_grid((self.x.rows() * self.cols() / piece).div_ceil(WORKGROUP as usize), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.x), self.y.binding(true)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let x = host.floats(&self.x)?;
        let mut y = Vec::with_capacity(x.len() / 2);
        for row in x.chunks_exact(self.x.cols()) {
            let (gate, up) = row.split_at(self.cols());
            let silu = |v: f64| v / (1.0 + (-v).exp());
            y.extend(gate.iter().zip(up).map(|(&g, &u)| (silu(f64::from(g)) * f64::from(u)) as f32));
        }
        self.y.set(host, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, cols) in [(1, 8), (3, 40), (7, 512)] {
        let mut builder = CaseBuilder::new(cols as u64);
        let x = builder.random(&[rows, 2 * cols]);
        // exp is allowed 3 + 2·|x| ulp: with |x| up to 40, 5e-6 relative.
        let y = Activations::F32(builder.output(&[rows, cols], Compare::Nmse(1e-10)));
        cases.push(builder.case(format!("{rows}x{cols}"), Swiglu { x, y }));
    }
    let mut builder = CaseBuilder::new(9);
    let x = builder.random(&[3, 2 * 96]);
    let y = q8_output(&mut builder, 3, 96, 1e-10);
    cases.push(builder.case("3x96 q8", Swiglu { x, y }));
    let mut builder = CaseBuilder::new(11);
    let x = builder.random(&[3, 2 * 96]);
    let y = f16_output(&mut builder, 3, 96);
    cases.push(builder.case("3x96 f16", Swiglu { x, y }));
    let mut builder = CaseBuilder::new(12);
    let x = builder.random(&[3, 2 * 96]);
    let y = tiles_output(&mut builder, 3, 96, Compare::HalfEach(1.0 / 1024.0));
    cases.push(builder.case("3x96 tiles", Swiglu { x, y }));
    // exp(-gate) is infinite below -88; the quotient must be -0, not NaN.
    let mut builder = CaseBuilder::new(10);
    let x = builder.floats(&[1, 16], &[-200.0, -100.0, 100.0, 0.0, -88.0, 3.0, -3.0, 1e-20, 1., 1., 1., 1., 1., 1., 1., 1.]);
    let y = Activations::F32(builder.output(&[1, 8], Compare::Nmse(1e-10)));
    cases.push(builder.case("far values", Swiglu { x, y }));
    cases
}
