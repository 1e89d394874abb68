//! `y[m, g] = max over n in 32 g .. 32 g + 32 of the key of Σ_k x[m, k] · w[n, k]`: search for many queries, where writing all
//! products would take longer than making them.

use super::super::host::Host;
use super::super::kernel::{Binding, Kernel, Params, expect, read, write};
use super::super::q8::Activations;
use super::super::ranking::{GROUP, best_of_groups, check_groups};
use super::super::scan::whole_numbers;
use super::super::testing::{Case, CaseBuilder, Compare};
use super::{CooperativeTile, Matmul, Shape, cooperative, matvec};
use crate::dtype::DType;
use crate::error::Result;
use crate::profile::Profile;
use crate::shader::{Flag, Spec};
use crate::tensor::Tensor;

/// For at most one matrix of rows, two, and more. Four subgroups with one or two groups of rows of `w` each, so that none is shared.
pub(super) const TILES_16: [CooperativeTile; 3] = [([1, 4, 1], [1, 4], 64), ([1, 4, 1], [2, 4], 64), ([2, 2, 1], [2, 2], 64)];
/// The same with sides of 8.
pub(super) const TILES_8: [CooperativeTile; 3] = [([1, 4, 1], [1, 4], 64), ([1, 4, 1], [2, 4], 64), ([2, 2, 1], [4, 4], 64)];

/// The best product of every group of rows, on cooperative matrices.
#[derive(Clone, Debug)]
pub struct MatmulBest {
    /// `w[N, K]`, K a multiple of 32; any weight format. Its values are taken as f16.
    pub w: Tensor,
    /// `x[M, K]` in F16.
    pub x: Tensor,
    /// `removed[N / 32]`, rounded up: a bit a row; those set are no candidates.
    pub removed: Tensor,
    /// `y[M, groups]`: keys, see [`super::super::ranking`].
    pub y: Tensor,
    /// The first group of `y` that is written; one for each [`GROUP`] rows is.
    pub first_group: usize,
}

impl MatmulBest {
    /// Whether a device can run it for so many rows of `x`.
    pub(crate) fn runs_with(profile: &Profile, rows: usize) -> bool {
        Self::shape_for(profile, rows).is_some()
    }

    fn shape_for(profile: &Profile, rows: usize) -> Option<Shape> {
        let (side, subgroup) = cooperative(profile)?;
        let tiles = if side == 16 { TILES_16 } else { TILES_8 };
        // The last of them takes the least memory.
        let shapes = tiles.into_iter().skip(rows.div_ceil(side as usize).clamp(1, 3) - 1);
        let mut shapes = shapes.map(|tile| Shape::cooperative(tile, side, subgroup));
        shapes.find(|shape| shape.fits(&profile.limits))
    }

    fn shape(&self, profile: &Profile) -> Option<Shape> {
        Self::shape_for(profile, self.x.rows())
    }

    fn product(&self) -> Matmul {
        let x = Activations::F16(self.x.clone());
        Matmul { w: self.w.clone(), x, y: self.y.clone(), y_offset: self.first_group, accumulate: false }
    }
}

impl Kernel for MatmulBest {
    fn name(&self) -> &'static str {
        "matmul_best"
    }

    fn check(&self) -> Result<()> {
        let (kernel, cols) = (self.name(), self.w.cols());
        matvec::check_formats(kernel, &self.w, &Activations::F16(self.x.clone()))?;
        expect(kernel, cols > 0 && cols.is_multiple_of(32) && self.x.rows() > 0, || {
            format!("w has {cols} columns and x {} rows, expected a multiple of 32 and one or more", self.x.rows())
        })?;
        Activations::F16(self.x.clone()).check(kernel, "x", self.x.rows(), cols)?;
        check_groups(kernel, self.w.rows(), &self.removed, 0, &self.y, self.x.rows(), self.first_group)
    }

    fn runs_on(&self, profile: &Profile) -> bool {
        self.shape(profile).is_some()
    }

    fn spec(&self, profile: &Profile) -> Spec {
        // What has no shape is not run; its shader is asked for all the same where kernels are listed.
        let shape = self.shape(profile).unwrap_or(Shape::cooperative(TILES_16[0], 16, 32));
        self.product().spec_of(shape, profile).flag(Flag::SUBGROUPS).slot("finish", "matmul/finish/best")
    }

    fn params(&self) -> Params {
        self.product().params()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        let tiles = self.shape(profile).map_or(1, |shape| shape.tiles(self.x.rows(), self.w.rows()).1);
        super::linear_grid(tiles, profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.w), read(&self.x), read(&self.removed), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let products = matvec::products(host, &self.w, &self.product().x.into())?;
        let scores: Vec<f32> = products.iter().map(|&product| product as f32).collect();
        best_of_groups(host, &scores, self.w.rows(), &self.removed, 0, &self.y, self.first_group)
    }
}

/// Cases for the harness: every number of rows a tile, rows past the last tile's end, groups that are not whole. Products are
/// whole numbers, so that keys are known to the bit.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, [m, n, k]) in [
        (DType::F16, [2, 300, 64]),
        (DType::F16, [12, 550, 96]),
        (DType::Q8_0, [20, 515, 64]),
        (DType::F32, [33, 700, 32]),
        (DType::F16, [64, 256, 384]),
    ] {
        let mut builder = CaseBuilder::new((m * n * k) as u64 + 5);
        let values = whole_numbers(&mut builder, n, k);
        let Ok(w) = builder.weight_of(dtype, k, &values) else { continue };
        let x: Vec<f32> = (0..m * k).map(|_| (builder.bits() % 7) as f32 - 3.0).collect();
        let mut removed: Vec<u32> = (0..n.div_ceil(GROUP)).map(|_| builder.bits() & builder.bits()).collect();
        // A group without a candidate.
        removed[3] = u32::MAX;
        let total = n.div_ceil(GROUP) + 3;
        let kernel = MatmulBest {
            w,
            x: builder.halves(&[m, k], &x),
            removed: builder.words(&[removed.len()], &removed),
            y: builder.words(&[m, total], &vec![7; m * total]),
            first_group: 1,
        };
        builder.updated(&kernel.y, Compare::Exact);
        cases.push(builder.case(format!("{dtype} {m}x{n}x{k}"), kernel));
    }
    cases
}
