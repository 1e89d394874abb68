//! `y[c, n] = Σ_k x[c, k] · w[n, k]` for one to eight columns: decode, where reading `w` is all the work.
//!
//! With quantised activations the sums are integer dot products (`dot4I8Packed`), as llama.cpp's `mul_mat_vec_q`.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, read, write};
use super::q8::{Activations, Q8};
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// The most columns that one dispatch serves.
pub const MAX_COLUMNS: usize = 8;

/// A matrix times a few columns.
#[derive(Clone, Debug)]
pub struct Matvec {
    /// `w[N, K]`, K padded as [`layout::padded_cols`] says; any weight format.
    pub w: Tensor,
    /// `x[C, K]`, C at most [`MAX_COLUMNS`]; quantised only where `w` is.
    pub x: Activations,
    /// `y[C, stride]`.
    pub y: Tensor,
    /// The column of `y` where the rows of `w` go.
    pub y_offset: usize,
    /// Whether sums are added to what `y` holds.
    pub accumulate: bool,
}

params! {
    struct Uniform { rows: u32, y_stride: u32, y_offset: u32 }
}

/// How the work is cut: the numbers of invocations in a workgroup, of those that share rows, and of rows shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    workgroup: u32,
    lanes: u32,
    tile: u32,
    subgroups: bool,
}

impl Matvec {
    fn shape(&self, profile: &Profile) -> Shape {
        let (columns, _) = self.x.dims();
        // One row a subgroup with integer dots, four with floats, where the loads of x are what they share; several
        // columns share them already.
        let tile = if self.x.is_q8() || columns > 2 { 1 } else { 4 };
        match profile.fixed_subgroup() {
            Some(lanes) if (8..=64).contains(&lanes) => {
                Shape { workgroup: (4 * lanes).min(profile.limits.max_workgroup_invocations), lanes, tile, subgroups: true }
            }
            _ => Shape { workgroup: 64, lanes: 32, tile, subgroups: false },
        }
    }
}

impl Kernel for Matvec {
    fn name(&self) -> &'static str {
        "matvec"
    }

    fn check(&self) -> Result<()> {
        let (columns, cols) = self.x.dims();
        expect("matvec", (1..=MAX_COLUMNS).contains(&columns), || {
            format!("x has {columns} rows, expected 1 to {MAX_COLUMNS}")
        })?;
        let padded = layout::padded_cols(self.w.dtype(), cols);
        expect("matvec", self.w.cols() == padded && cols.is_multiple_of(4) && padded.is_multiple_of(32), || {
            format!("w has {} columns, expected {padded} for x of {cols}", self.w.cols())
        })?;
        expect("matvec", self.w.dtype().is_quantized() || !self.x.is_q8(), || {
            format!("quantised x with a weight of {}, expected a quantised one", self.w.dtype())
        })?;
        expect("matvec", self.y.rows() == columns && self.y_offset + self.w.rows() <= self.y.cols(), || {
            format!("y has shape {:?}, expected {columns} rows of {} from {}", self.y.shape(), self.w.rows(), self.y_offset)
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let (columns, cols) = self.x.dims();
        let shape = self.shape(profile);
        let mut spec = Spec::new("matvec", Target::of(profile))
            .constant("K", self.w.cols() as u32)
            .constant("X_COLS", cols as u32)
            .constant("ROW_VEC4", (layout::row_bytes(self.w.dtype(), self.w.cols()) / 16) as u32)
            .constant("COLUMNS", columns as u32)
            .constant("WORKGROUP", shape.workgroup)
            .constant("LANES", shape.lanes)
            .constant("TILE", shape.tile)
            .constant("ACCUMULATE", self.accumulate)
            .slot("weights", format!("weights/{}", self.w.dtype()))
            .trusted();
        if shape.subgroups {
            spec = spec.flag(Flag::SUBGROUPS);
        }
        if self.x.is_q8() { spec.flag(Flag::DOT4) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform { rows: self.w.rows() as u32, y_stride: self.y.cols() as u32, y_offset: self.y_offset as u32 }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        let shape = self.shape(profile);
        let rows = (shape.workgroup / shape.lanes * shape.tile) as usize;
        linear_grid(self.w.rows().div_ceil(rows), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = vec![read(&self.w)];
        bindings.extend(self.x.bindings(false));
        bindings.push(write(&self.y));
        bindings
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        reference(host, &self.w, &self.x, &self.y, self.y_offset, self.accumulate)
    }
}

/// `y (+)= x · wᵀ` on the host, sums in f64; shared with `matmul`.
pub(super) fn reference(
    host: &mut Host,
    w: &Tensor,
    x: &Activations,
    y: &Tensor,
    y_offset: usize,
    accumulate: bool,
) -> Result<()> {
    let (weights, inputs, mut out) = (host.floats(w)?, x.values(host)?, host.floats(y)?);
    let (rows, cols) = x.dims();
    for m in 0..rows {
        for n in 0..w.rows() {
            let row = &weights[n * w.cols()..][..cols];
            let terms = row.iter().zip(&inputs[m * cols..]).map(|(&w, &x)| f64::from(w) * f64::from(x));
            let target = &mut out[m * y.cols() + y_offset + n];
            let before = if accumulate { f64::from(*target) } else { 0.0 };
            *target = (before + terms.sum::<f64>()) as f32;
        }
    }
    host.set(y, &out)
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |dtype: DType, columns: usize, n: usize, k: usize, q8: bool, accumulate: bool| {
        let mut builder = CaseBuilder::new((n * k + columns) as u64);
        let Ok(w) = builder.weight(dtype, n, k) else { return };
        let x = if q8 {
            let (bytes, scales) = super::q8::pack(&builder.normals(columns * k));
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
            let q = builder.words(&[columns, k / 4], &words);
            Activations::Q8(Q8 { q, s: builder.floats(&[columns, k / 32, 2], &scales) })
        } else {
            Activations::F32(builder.random(&[columns, k]))
        };
        let (y_offset, stride) = if accumulate { (3, n + 5) } else { (0, n) };
        // Sums of up to 4096 products in f32, in another order than the reference's: relative errors near 1e-6, more
        // where terms of a Q4_1 minimum cancel.
        let y = builder.random(&[columns, stride]);
        builder.updated(&y, Compare::Nmse(1e-11));
        let name = format!("{dtype} {columns}x{n}x{k}{}{}", if q8 { " q8" } else { "" }, if accumulate { " +=" } else { "" });
        cases.push(builder.case(name, Matvec { w, x, y, y_offset, accumulate }));
    };
    for dtype in DType::WEIGHTS {
        add(dtype, 1, 37, 256, false, false);
        add(dtype, 3, 9, 512, false, true);
        if dtype.is_quantized() {
            add(dtype, 1, 37, 256, true, true);
            add(dtype, 5, 6, 768, true, false);
        } else {
            add(dtype, 2, 5, 72, false, false);
        }
    }
    add(DType::Q4_0, 1, 130, 4096, true, true);
    add(DType::Q4_0, 8, 33, 64, false, false);
    add(DType::F16, 1, 1, 8, false, false);
    cases
}
