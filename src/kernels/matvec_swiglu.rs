//! `y[c, n] = silu(gate) · up`, `gate = Σ_k x[c, k] · w[n, k]`, `up = Σ_k x[c, k] · w[N + n, k]`: the gated half of a
//! feed-forward layer in one step (Shazeer 2020).

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, read};
use super::matvec::{self, Input, Shape};
use super::normed::Normed;
use super::q8::{Activations, BLOCK};
use super::testing::{Case, CaseBuilder};
use crate::dtype::DType;
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::Spec;
use crate::tensor::Tensor;

/// Gate and up matrices times a few columns, joined by SwiGLU.
#[derive(Clone, Debug)]
pub struct MatvecSwiglu {
    /// `w[2·N, K]`: gate, then up; N a multiple of 32; any weight format.
    pub w: Tensor,
    /// `x[C, K]`, as of [`matvec::Matvec`].
    pub x: Normed,
    /// `y[C, N]`.
    pub y: Activations,
}

params! {
    struct Uniform { blocks: u32, eps: f32 }
}

impl MatvecSwiglu {
    fn shape(&self, profile: &Profile) -> Shape {
        let several = self.x.values.is_q8() && self.x.values.dims().0 > 2;
        let rows = if several { 2 * BLOCK } else { BLOCK };
        // Twice as many workgroups, each with half the memory, leave fewer waiting where there are as many rows as here.
        let subgroups = if matches!(self.x.values, Activations::Tiles(_)) { 4 } else { 16 };
        let shape = Shape::new(&self.x.values, profile, subgroups, rows as u32, 2, [4, matvec::rows_together(&self.w)]);
        // A gate and its up row are worked on side by side.
        Shape { tile: shape.tile.max(2), ..shape }
    }

    /// Results of a workgroup.
    fn results(&self, profile: &Profile) -> usize {
        if self.shape(profile).skinny { matvec::SKINNY_ROWS / 2 } else { BLOCK }
    }
}

impl Kernel for MatvecSwiglu {
    fn name(&self) -> &'static str {
        "matvec_swiglu"
    }

    fn check(&self) -> Result<()> {
        let kernel = self.name();
        matvec::check(kernel, &self.w, &self.x.values)?;
        self.x.check(kernel)?;
        expect(kernel, self.w.rows().is_multiple_of(2 * BLOCK), || {
            format!("w has {} rows, expected a multiple of {}", self.w.rows(), 2 * BLOCK)
        })?;
        let tiles = matches!(self.x.values, Activations::Tiles(_));
        expect(kernel, !(tiles && self.y.is_q8()), || "y is quantised, expected halves or floats with x in tiles".into())?;
        self.y.check(kernel, "y", self.x.values.dims().0, self.w.rows() / 2)
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = matvec::spec(self.name(), &self.w, &self.x.values, self.shape(profile), profile)
            .constant("ROWS", self.w.rows() as u32)
            .constant("SQUARES", self.x.parts());
        self.y.output(spec)
    }

    fn params(&self) -> Params {
        Uniform { blocks: (self.w.rows() / 2 / BLOCK) as u32, eps: self.x.eps() }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.w.rows() / 2 / self.results(profile), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = vec![read(&self.w)];
        bindings.extend(self.x.bindings(&self.w));
        bindings.push(self.y.binding(true));
        bindings
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (products, n) = (matvec::products(host, &self.w, &self.x)?, self.w.rows() / 2);
        let silu = |v: f64| v / (1.0 + (-v).exp());
        let row = |row: &[f64]| -> Vec<f32> { (0..n).map(|i| (silu(row[i]) * row[n + i]) as f32).collect() };
        let y: Vec<f32> = products.chunks_exact(2 * n).flat_map(row).collect();
        self.y.set(host, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |dtype: DType, columns: usize, n: usize, k: usize, [from, to]: [Input; 2]| {
        let mut builder = CaseBuilder::new((n * k + columns) as u64);
        let Ok(w) = builder.weight(dtype, 2 * n, k) else { return };
        let x = matvec::case_input(&mut builder, columns, k, from, columns != 2);
        // As of `swiglu`, whose inputs are sums with the errors of products here.
        let y = to.output(&mut builder, columns, n, 10.0 * from.nmse());
        let name = format!("{dtype} {columns}x{n}x{k} {} to {}", from.name(), to.name());
        cases.push(builder.case(name, MatvecSwiglu { w, x, y }));
    };
    for dtype in DType::WEIGHTS {
        let kind = if dtype.is_quantized() { Input::Q8 } else { Input::F32 };
        add(dtype, 1, 32, 256, [kind, kind]);
    }
    add(DType::Q4_0, 8, 96, 512, [Input::Q8, Input::Q8]);
    add(DType::Q8_0, 5, 64, 256, [Input::Q8, Input::Q8]);
    add(DType::Q4_K, 1, 64, 4096, [Input::Q8, Input::Q8]);
    add(DType::Q8_0, 2, 32, 64, [Input::Q8, Input::F32]);
    add(DType::F16, 3, 64, 72, [Input::F32, Input::Q8]);
    add(DType::F16, 2, 64, 72, [Input::F32, Input::F32]);
    add(DType::Q4_0, 8, 96, 1376, [Input::Tiles, Input::Tiles]);
    add(DType::Q6_K, 29, 64, 512, [Input::Tiles, Input::F32]);
    // All columns of tiles: four subgroups' matrices take less room than what is kept of 32.
    add(DType::Q4_0, 32, 64, 256, [Input::Tiles, Input::Tiles]);
    cases
}
