//! `y[m, n] = silu(Σ_k x[m, k] · w[n, k]) · Σ_k x[m, k] · w[N + n, k]` (Shazeer 2020): [`Matmul`] of gate and up at once with
//! what joins them, for cooperative matrices: neither half is written, and no dispatch reads them again.

use super::super::host::Host;
use super::super::kernel::{Binding, Kernel, Params, expect, expect_shape, linear_grid};
use super::super::q8::{Activations, BLOCK};
use super::super::testing::{Case, CaseBuilder, Compare};
use super::{MANY_ROWS, Matmul, Shape, Unit, matvec};
use crate::dtype::DType;
use crate::error::Result;
use crate::profile::Profile;
use crate::shader::Spec;
use crate::tensor::Tensor;

/// Gate and up matrices times many rows, joined.
#[derive(Clone, Debug)]
pub struct MatmulSwiglu {
    /// `w[2·N, K]`: gate, then up; N a multiple of 32; any weight format.
    pub w: Tensor,
    /// `x[M, K]`, as of [`Matmul`].
    pub x: Activations,
    /// `y[M, N]` in F16.
    pub y: Tensor,
}

impl MatmulSwiglu {
    /// As of the product, but that subgroups of wide tiles hold twice as much however few rows there are: what joins their sums takes a
    /// subgroup's time, and tiles of 32 columns leave room for it. (7B's 32 layers at 512 rows on an H100: Q4_0 16.0 to 13.7 ms.)
    fn shape(&self, profile: &Profile) -> Shape {
        let shape = self.product().shape(profile);
        let (Unit::Cooperative { side, subgroup }, [4, 2, 1], [2, 4]) = (shape.unit, shape.groups, shape.parts) else {
            return shape;
        };
        let wider = Shape::cooperative(MANY_ROWS, side, subgroup);
        if wider.fits(&profile.limits) { wider } else { shape }
    }

    fn product(&self) -> Matmul {
        Matmul { w: self.w.clone(), x: self.x.clone(), y: self.y.clone(), y_offset: 0, accumulate: false }
    }
}

impl Kernel for MatmulSwiglu {
    fn name(&self) -> &'static str {
        "matmul_swiglu"
    }

    fn check(&self) -> Result<()> {
        let (kernel, (m, cols)) = (self.name(), self.x.dims());
        expect(kernel, self.w.rows().is_multiple_of(2 * BLOCK) && self.w.rows() > 0, || {
            format!("w has {} rows, expected a multiple of {}", self.w.rows(), 2 * BLOCK)
        })?;
        expect_shape(kernel, "y", self.y.shape(), &[m, self.w.rows() / 2])?;
        expect(kernel, !self.x.is_q8(), || "x is quantised, expected floats or halves".into())?;
        expect(kernel, self.y.dtype() == DType::F16, || format!("y is {}, expected F16", self.y.dtype()))?;
        // As of the product of all rows.
        let y = Tensor::new(self.y.storage().clone(), self.y.offset(), DType::F16, [m, self.w.rows()]);
        let whole = Matmul { y, ..self.product() };
        whole.check().map_err(|error| error.context(format!("{kernel} of {cols} columns")))
    }

    fn runs_on(&self, profile: &Profile) -> bool {
        // A subgroup holds gates and their ups, whole.
        let shape = self.shape(profile);
        let pairs = shape.groups[2] == 1 && shape.parts[1] > 1;
        self.product().runs_on(profile) && matches!(shape.unit, Unit::Cooperative { .. }) && pairs
    }

    fn spec(&self, profile: &Profile) -> Spec {
        self.product().spec_of(self.shape(profile), profile).slot("finish", "matmul/finish/swiglu")
    }

    fn params(&self) -> Params {
        self.product().params()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.shape(profile).tiles(self.x.dims().0, self.w.rows()).1, profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        self.product().bindings()
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let products = matvec::products(host, &self.w, &self.x.clone().into())?;
        let mut y = Vec::with_capacity(products.len() / 2);
        for row in products.chunks_exact(self.w.rows()) {
            let (gates, ups) = row.split_at(self.w.rows() / 2);
            y.extend(gates.iter().zip(ups).map(|(gate, up)| (gate / (1.0 + (-gate).exp()) * up) as f32));
        }
        Activations::F16(self.y.clone()).set(host, &y)
    }
}

/// Cases for the harness: enough tiles for the wide shapes with matrices of 8 and of 16, rows past the last tile's end.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, [m, n, k]) in [
        (DType::Q4_0, [130, 2_080, 64]),
        (DType::F16, [500, 3_104, 64]),
        // Narrow tiles, over an edge and not.
        (DType::F16, [520, 2_464, 64]),
        (DType::F16, [640, 2_496, 64]),
        (DType::Q8_0, [64, 6_144, 32]),
        (DType::Q4_K, [500, 1_568, 256]),
    ] {
        let mut builder = CaseBuilder::new((m * n * k) as u64 + 3);
        let Ok(w) = builder.weight(dtype, 2 * n, k) else { continue };
        let values = builder.normals(m * k);
        let x = Activations::F16(builder.halves(&[m, k], &values));
        // As for the product: tiles round each factor to 11 bits; silu and the product of two take up to three times that.
        let y = builder.halves_output(&[m, n], Compare::HalfNmse(3e-6));
        cases.push(builder.case(format!("{dtype} {m}x{n}x{k}"), MatmulSwiglu { w, x, y }));
    }
    cases
}
