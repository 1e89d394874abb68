//! `y[c, n] = Σ_k x[c, k] · w[n, k]` for a few columns: decode, where reading `w` is all the work.
//!
//! With quantised activations the sums are integer dot products (`dot4I8Packed`), as llama.cpp's `mul_mat_vec_q`; with halves
//! in tiles, of up to 32 columns, they are products of cooperative matrices where the device has them.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, read, write};
use super::normed::{Normed, Squares};
use super::matmul::cooperative;
use super::q8::{Activations, BLOCK, Q8, Tiles};
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// The most columns that one dispatch serves, but for [`Tiles`].
pub const MAX_COLUMNS: usize = 8;
/// The fewest columns for which tiles are worth it.
const MIN_TILES: usize = 5;
/// Rows of `w` of a workgroup that multiplies cooperative matrices.
pub(super) const SKINNY_ROWS: usize = 32;
/// Its subgroups, which share K, at most.
const SKINNY_SUBGROUPS: u32 = 8;

/// A matrix times a few columns.
#[derive(Clone, Debug)]
pub struct Matvec {
    /// `w[N, K]`, K padded as [`layout::padded_cols`] says; any weight format.
    pub w: Tensor,
    /// `x[C, K]`, C at most [`MAX_COLUMNS`], in tiles [`Tiles::MAX_ROWS`]; quantised only where `w` is.
    pub x: Normed,
    /// `y[C, stride]`.
    pub y: Tensor,
    /// The column of `y` where the rows of `w` go.
    pub y_offset: usize,
    /// Whether sums are added to what `y` holds.
    pub accumulate: bool,
}

params! {
    struct Uniform { rows: u32, y_stride: u32, y_offset: u32, eps: f32 }
}

/// How the work is cut: the numbers of invocations in a workgroup, of those that share rows, and of rows shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub workgroup: u32,
    pub lanes: u32,
    pub tile: u32,
    /// The size of subgroups, where they are used.
    pub subgroup: Option<u32>,
    /// Whether they multiply cooperative matrices; lanes and tile are not used then.
    pub skinny: bool,
}

/// The size of the subgroups that multiply matrices of 16 by tiles of halves, where the device has what that takes.
pub(super) fn skinny(profile: &Profile) -> Option<u32> {
    let (side, subgroup) = cooperative(profile)?;
    let workgroup = SKINNY_SUBGROUPS * subgroup;
    // Slabs of 32 rows of 64 and 8 halves, a matrix of sums for each subgroup, and a number a column.
    let bytes = SKINNY_SUBGROUPS * (32 * 72 * 2 + 256 * 4) + 32 * 4;
    let limits = &profile.limits;
    let fits = workgroup <= limits.max_workgroup_invocations && bytes <= limits.max_workgroup_bytes;
    (side == 16 && profile.features.subgroups && [32, 64].contains(&subgroup) && fits).then_some(subgroup)
}

/// Whether products of `m` columns with `n` rows of `k` are best given [`Tiles`]. Up to [`MAX_COLUMNS`], integer dot products
/// are faster where there are rows enough for them to fill a GPU without sharing K.
pub fn wants_tiles(profile: &Profile, m: usize, n: usize, k: usize, integer: bool) -> bool {
    let few = m <= MAX_COLUMNS && integer && n > k;
    (MIN_TILES..=Tiles::MAX_ROWS).contains(&m) && !few && skinny(profile).is_some()
}

impl Shape {
    /// One row a subgroup with integer dots; `floats` with floats, where the loads of x are what they share, and one with several
    /// columns, whose values of x fill the registers. Several quantised columns: `several` groups of invocations a subgroup,
    /// so that loads of x serve all groups at once, and rows of each.
    ///
    /// At most `rows` rows at once.
    pub fn new(
        x: &Activations,
        profile: &Profile,
        subgroups_a_workgroup: u32,
        rows: u32,
        floats: u32,
        several: [u32; 2],
    ) -> Self {
        if let (Activations::Tiles(_), Some(subgroup)) = (x, skinny(profile)) {
            let workgroup = SKINNY_SUBGROUPS.min(subgroups_a_workgroup) * subgroup;
            return Shape { workgroup, lanes: subgroup, tile: 1, subgroup: Some(subgroup), skinny: true };
        }
        let limit = profile.limits.max_workgroup_invocations;
        let subgroup = profile.fixed_subgroup().filter(|subgroup| (8..=64).contains(subgroup));
        let [groups, tile] = match (x.is_q8(), x.dims().0) {
            (true, 1..=2) | (false, 3..) => [1, 1],
            (true, _) => several,
            // Without subgroups, a turn more costs two barriers.
            (false, _) => [1, if subgroup.is_some() { floats } else { 4 }],
        };
        // Without subgroups, 32 neighbours share rows by way of workgroup memory, in workgroups of what every device has.
        let (width, lanes, limit) = match subgroup {
            Some(subgroup) => (subgroup, subgroup / groups, limit),
            None => (32, 32, limit.min(256)),
        };
        let mut workgroup = subgroups_a_workgroup * width;
        while workgroup > limit || workgroup / lanes * tile > rows {
            workgroup /= 2;
        }
        Shape { workgroup, lanes, tile, subgroup, skinny: false }
    }

    /// Rows that a workgroup works on at once.
    pub fn rows(&self) -> u32 {
        if self.skinny { SKINNY_ROWS as u32 } else { self.workgroup / self.lanes * self.tile }
    }
}

/// The part of a spec that every product of a few columns has.
pub(super) fn spec(kernel: &'static str, w: &Tensor, x: &Activations, shape: Shape, profile: &Profile) -> Spec {
    let (columns, cols) = x.dims();
    let mut spec = Spec::new(kernel, Target::of(profile))
        .constant("K", w.cols() as u32)
        .constant("X_COLS", cols as u32)
        .constant("ROW_VEC4", (layout::row_bytes(w.dtype(), w.cols()) / 16) as u32)
        .constant("COLUMNS", columns as u32)
        .constant("WORKGROUP", shape.workgroup)
        .slot("weights", format!("weights/{}", w.dtype()))
        .trusted();
    if let Activations::Tiles(tiles) = x {
        spec = spec.constant("TILE_M", tiles.tile_rows() as u32);
    }
    if let Some(subgroup) = shape.subgroup {
        spec = spec.flag(Flag::SUBGROUPS).constant("SUBGROUP", subgroup);
        if subgroup >= BLOCK as u32 {
            spec = spec.flag(Flag::SPREAD);
        }
    }
    if shape.skinny {
        return spec
            .flag(Flag::F16)
            .flag(Flag::COOP_MATRIX)
            .constant("TILE_K", if w.cols().is_multiple_of(64) { 64u32 } else { 32 })
            .alias("MatA", "coop_mat16x16<f16, A>")
            .alias("MatB", "coop_mat16x16<f16, B>")
            .alias("MatC", "coop_mat16x16<f32, C>");
    }
    spec = spec.constant("LANES", shape.lanes).constant("TILE", shape.tile);
    match x {
        Activations::Q8(_) => spec.flag(Flag::DOT4),
        Activations::Tiles(_) => spec.flag(Flag::TILES),
        _ => spec,
    }
}

/// An error unless `w` and `x` fit together.
pub(super) fn check(kernel: &str, w: &Tensor, x: &Activations) -> Result<()> {
    let (columns, cols) = x.dims();
    let most = if matches!(x, Activations::Tiles(_)) { Tiles::MAX_ROWS } else { MAX_COLUMNS };
    expect(kernel, (1..=most).contains(&columns), || format!("x has {columns} rows, expected 1 to {most}"))?;
    x.check(kernel, "x", columns, cols)?;
    let padded = layout::padded_cols(w.dtype(), cols);
    expect(kernel, w.cols() == padded && cols.is_multiple_of(4) && padded.is_multiple_of(32), || {
        format!("w has {} columns, expected {padded} for x of {cols}", w.cols())
    })?;
    check_formats(kernel, w, x)
}

/// An error where `x` is quantised and `w` is not.
pub(super) fn check_formats(kernel: &str, w: &Tensor, x: &Activations) -> Result<()> {
    expect(kernel, w.dtype().is_quantized() || !x.is_q8(), || {
        format!("quantised x with a weight of {}, expected a quantised one", w.dtype())
    })
}

/// Rows that a group of invocations takes with several quantised columns: more fill the registers, but for bytes, of which
/// nothing has to be unpacked.
pub(super) fn rows_together(w: &Tensor) -> u32 {
    if w.dtype() == DType::Q8_0 { 4 } else { 2 }
}

impl Matvec {
    fn shape(&self, profile: &Profile) -> Shape {
        let x = &self.x.values;
        let subgroups = match x {
            Activations::Tiles(_) => SKINNY_SUBGROUPS,
            // More of them share what becomes of the sums of squares of several columns.
            Activations::Q8(_) if x.dims().0 > 2 => 8,
            _ => 4,
        };
        Shape::new(x, profile, subgroups, u32::MAX, 4, [2, rows_together(&self.w)])
    }
}

impl Kernel for Matvec {
    fn name(&self) -> &'static str {
        "matvec"
    }

    fn check(&self) -> Result<()> {
        check(self.name(), &self.w, &self.x.values)?;
        self.x.check(self.name())?;
        let (columns, _) = self.x.values.dims();
        expect("matvec", self.y.rows() == columns && self.y_offset + self.w.rows() <= self.y.cols(), || {
            format!("y has shape {:?}, expected {columns} rows of {} from {}", self.y.shape(), self.w.rows(), self.y_offset)
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        spec(self.name(), &self.w, &self.x.values, self.shape(profile), profile)
            .constant("ACCUMULATE", self.accumulate)
            .constant("SQUARES", self.x.parts())
    }

    fn params(&self) -> Params {
        Uniform {
            rows: self.w.rows() as u32,
            y_stride: self.y.cols() as u32,
            y_offset: self.y_offset as u32,
            eps: self.x.eps(),
        }
        .into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.w.rows().div_ceil(self.shape(profile).rows() as usize), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = vec![read(&self.w)];
        bindings.extend(self.x.bindings(&self.w));
        bindings.push(write(&self.y));
        bindings
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        reference(host, &self.w, &self.x, &self.y, self.y_offset, self.accumulate)
    }
}

/// `x · wᵀ` on the host, sums in f64: `[M, N]`.
pub(super) fn products(host: &Host, w: &Tensor, x: &Normed) -> Result<Vec<f64>> {
    let (weights, inputs, scales) = (host.floats(w)?, x.values.values(host)?, x.scales(host)?);
    let (rows, cols) = x.values.dims();
    let mut out = Vec::with_capacity(rows * w.rows());
    for m in 0..rows {
        for n in 0..w.rows() {
            let row = &weights[n * w.cols()..][..cols];
            let terms = row.iter().zip(&inputs[m * cols..]).map(|(&w, &x)| f64::from(w) * f64::from(x));
            out.push(terms.sum::<f64>() * scales[m]);
        }
    }
    Ok(out)
}

/// `y (+)= x · wᵀ` on the host; shared with `matmul`.
pub(super) fn reference(
    host: &mut Host,
    w: &Tensor,
    x: &Normed,
    y: &Tensor,
    y_offset: usize,
    accumulate: bool,
) -> Result<()> {
    let (products, mut out) = (products(host, w, x)?, host.floats(y)?);
    for (m, products) in products.chunks_exact(w.rows().max(1)).enumerate() {
        for (n, product) in products.iter().enumerate() {
            let target = &mut out[m * y.cols() + y_offset + n];
            let before = if accumulate { f64::from(*target) } else { 0.0 };
            *target = (before + product) as f32;
        }
    }
    host.set(y, &out)
}

/// How the input of a case lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Input {
    F32,
    Q8,
    Tiles,
}

impl Input {
    /// For a case's name.
    pub fn name(self) -> &'static str {
        match self {
            Input::F32 => "f32",
            Input::Q8 => "q8",
            Input::Tiles => "tiles",
        }
    }

    /// An output that lies so, of values whose error is `nmse`.
    pub fn output(self, builder: &mut CaseBuilder, rows: usize, cols: usize, nmse: f64) -> Activations {
        match self {
            Input::F32 => Activations::F32(builder.output(&[rows, cols], Compare::Nmse(nmse))),
            Input::Q8 => super::rms_norm::q8_output(builder, rows, cols, nmse),
            Input::Tiles => {
                // Of exact values all but the last bit of a half; else rounding adds an NMSE of 2^-24 / 3 at most.
                let exact = nmse < 1e-9;
                let compare =
                    if exact { Compare::HalfEach(1.0 / 1024.0) } else { Compare::HalfNmse(nmse + 4e-8) };
                super::rms_norm::tiles_output(builder, rows, cols, compare)
            }
        }
    }

    /// What products with it may differ by. Sums of up to 4096 products in f32, in another order than the reference's:
    /// relative errors near 1e-6, more where terms of a Q4_1 minimum cancel. With tiles, weights may be rounded to halves,
    /// a relative error of 2^-12 / √3 each: an NMSE of 2e-8, and 1e-6 leaves room for cancellation.
    pub fn nmse(self) -> f64 {
        if self == Input::Tiles { 1e-6 } else { 1e-11 }
    }
}

/// Input of a case: normal values, quantised where wanted, with squares where wanted.
pub(super) fn case_input(builder: &mut CaseBuilder, columns: usize, k: usize, input: Input, squares: bool) -> Normed {
    let values = if input == Input::Tiles {
        let shape = Tiles::shape(columns, k);
        let values = builder.normals(shape.iter().product());
        Activations::Tiles(Tiles { x: builder.halves(&shape, &values), rows: columns })
    } else if input == Input::Q8 {
        let mut words = super::q8::pack(&builder.normals(columns * k));
        if squares {
            for about in words[8 * columns * k / 32..].chunks_exact_mut(4) {
                about[2] = (8.0 * builder.normal().abs() + 1.0).to_bits();
            }
        }
        Activations::Q8(Q8 { x: builder.words(&Q8::shape(columns, k), &words) })
    } else {
        Activations::F32(builder.random(&[columns, k]))
    };
    let squares = squares.then(|| {
        let beside = (input != Input::Q8).then(|| {
            let parts = k.div_ceil(32);
            let sums: Vec<f32> = (0..columns * parts).map(|_| 8.0 * builder.normal().abs() + 1.0).collect();
            builder.floats(&[columns, parts], &sums)
        });
        Squares { sums: beside, eps: 1e-5 }
    });
    Normed { values, squares }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |dtype: DType, columns: usize, n: usize, k: usize, input: Input, accumulate: bool| {
        let mut builder = CaseBuilder::new((n * k + columns) as u64);
        let Ok(w) = builder.weight(dtype, n, k) else { return };
        let x = case_input(&mut builder, columns, k, input, columns != 3 && (n % 2 == 1 || input != Input::F32));
        let (y_offset, stride) = if accumulate { (3, n + 5) } else { (0, n) };
        let y = builder.random(&[columns, stride]);
        builder.updated(&y, Compare::Nmse(input.nmse()));
        let name = format!("{dtype} {columns}x{n}x{k} {}{}", input.name(), if accumulate { " +=" } else { "" });
        cases.push(builder.case(name, Matvec { w, x, y, y_offset, accumulate }));
    };
    for dtype in DType::WEIGHTS {
        add(dtype, 1, 37, 256, Input::F32, false);
        add(dtype, 3, 9, 512, Input::F32, true);
        if dtype.is_quantized() {
            add(dtype, 1, 37, 256, Input::Q8, true);
            add(dtype, 5, 6, 768, Input::Q8, false);
        } else {
            add(dtype, 2, 5, 72, Input::F32, false);
        }
        add(dtype, 5, 37, 768, Input::Tiles, dtype == DType::Q4_0);
    }
    add(DType::Q4_0, 1, 130, 4096, Input::Q8, true);
    add(DType::Q4_0, 8, 33, 64, Input::F32, false);
    add(DType::F16, 1, 1, 8, Input::F32, false);
    // Both heights of tiles, and K that is no multiple of what all subgroups take at once.
    for (columns, n, k) in [(16, 64, 1024), (17, 70, 1376), (32, 33, 4096), (7, 5, 96)] {
        add(DType::Q4_0, columns, n, k, Input::Tiles, columns == 17);
    }
    cases
}
