//! `y[m, y_offset + n] (+)= Σ_k x[m, k] · w[n, k]` for many rows: prefill, and decode of more sequences than
//! `matvec` takes.
//!
//! A workgroup computes a tile of the result. Tiles of `x` and of the dequantised `w` go through workgroup memory, as f32,
//! as f16, as f16 for cooperative matrices, or, where `x` is quantised, both as bytes for integer dot products, as llama.cpp's
//! `mul_mat_q`. Sums are f32 everywhere.

mod best;
mod bias;
mod swiglu;

pub use best::MatmulBest;
pub use bias::MatmulBias;
pub use swiglu::MatmulSwiglu;

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, read, write};
use super::matvec::{self, Input};
use super::q8::{Activations, BLOCK};
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout;
use crate::params;
use crate::profile::{Backend, CooperativeMatrix, Element, Limits, Profile};
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// A matrix times many rows.
#[derive(Clone, Debug)]
pub struct Matmul {
    /// `w[N, K]`, K padded as [`layout::padded_cols`] says; any weight format. With f16 tiles its values are taken as f16.
    pub w: Tensor,
    /// `x[M, K]`, K a multiple of 8, quantised only where `w` is. With f16 tiles floats are rounded to f16 and limited to ±65504.
    pub x: Activations,
    /// `y[M, stride]`, F32, or F16 of a multiple of 32 columns on a device that has f16.
    pub y: Tensor,
    /// The column of `y` where the rows of `w` go.
    pub y_offset: usize,
    /// Whether sums are added to what `y` holds.
    pub accumulate: bool,
}

params! {
    struct Uniform { m: u32, n: u32, y_stride: u32, y_offset: u32, accumulate: u32 }
}

/// What multiplies the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Ordinary arithmetic on tiles of f32.
    F32,
    /// Ordinary arithmetic in f32 on tiles of f16.
    F16,
    /// Integer dot products of bytes.
    Bytes,
    /// Matrices of `side` × `side` × `side`, held by subgroups of a fixed size.
    Cooperative { side: u32, subgroup: u32 },
}

/// A tile and how a workgroup shares its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    unit: Unit,
    /// Rows of `x`, rows of `w`, and columns of both at a time.
    tile: [u32; 3],
    workgroup: u32,
    /// Cooperative: the grid of subgroups along M, N and K.
    groups: [u32; 3],
    /// Cooperative: matrices of a subgroup along M and N.
    parts: [u32; 2],
}

/// Groups, parts and K of a cooperative tile.
type CooperativeTile = ([u32; 3], [u32; 2], u32);
// For at most 16, 32, 64 and any number of rows with sides of 16; the widest first. All have eight subgroups. With
// narrow tiles subgroups split K, which keeps as many bytes of `w` under way; every invocation dequantises one sub-block
// of 32 a round (two with sides of 8).
const ROWS_16: [CooperativeTile; 3] = [([1, 8, 1], [1, 1], 64), ([1, 4, 2], [1, 1], 128), ([1, 2, 4], [1, 1], 256)];
const ROWS_32: [CooperativeTile; 3] = [([1, 8, 1], [2, 1], 64), ([1, 4, 2], [2, 1], 128), ([1, 2, 4], [2, 1], 256)];
const ROWS_64: [CooperativeTile; 2] = [([2, 4, 1], [2, 2], 64), ([2, 2, 2], [2, 2], 128)];
const ROWS_128: [CooperativeTile; 3] = [([4, 2, 1], [2, 4], 64), ([2, 4, 1], [2, 2], 64), ([2, 2, 2], [2, 2], 128)];
/// For many rows: four subgroups that each hold twice as much and load less for it. 128 tiles take an H100 nearly as long as 256,
/// so that few tiles leave it without work. (7B's 32 layers at 2048 rows: F16's products 123 to 106 ms, Q4_0's 115 to 107;
/// at 512 rows, down in Q4_0, 7.2 to 11.7.)
const MANY_ROWS: CooperativeTile = ([2, 2, 1], [4, 4], 32);
/// The same where K has few rounds, and writing sums takes its share: eight subgroups that hold half as much.
const FEW_ROUNDS: CooperativeTile = ([2, 4, 1], [4, 2], 64);
/// At most as many elements of K are few rounds: 384 were measured, and 1536.
const FEW: usize = 768;
/// The same of 96 rows of `w`, for plain weights where K is at most [`NARROW_K`].
const NARROW: CooperativeTile = ([2, 3, 1], [4, 2], 32);
/// 1536 was measured.
const NARROW_K: usize = 2048;

/// Workgroups that a large GPU has at work at once: below this, smaller tiles use it better although they read more.
const ENOUGH_FOR_ARITHMETIC: usize = 96;
/// The same where reading `w` is most of the work, and more bytes under way are faster.
const ENOUGH_FOR_READING: usize = 192;
/// More rows than this have tiles of [`MANY_ROWS`], [`FEW_ROUNDS`] or [`NARROW`].
const MANY: usize = 512;
/// As many tiles of [`MANY_ROWS`] at least; twice as many of [`FEW_ROUNDS`] with quantised weights.
const ENOUGH_OF_MANY: usize = 192;
/// Multiprocessors of the GPU that tiles were measured on, an H100, and a guess for others: each takes tiles one after the other, however
/// many it holds at once, so that 144 of them take as long as 264.
pub(crate) const MULTIPROCESSORS: usize = 132;

/// What a product multiplies, as far as its shape depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factors {
    /// Floats by floats or halves.
    Plain,
    /// Quantised weights, unpacked, by floats or halves.
    Unpacked,
    /// Quantised weights by bytes.
    Bytes,
}

/// Tiles for many rows and plain weights, and hundredths of the time that their sums take to that of the fastest, from the measurements
/// that [`Shape::of_many`] tells of, less 3 us for a dispatch.
fn times(k: usize) -> &'static [(CooperativeTile, usize)] {
    match k {
        0..=FEW => &[(FEW_ROUNDS, 100), (NARROW, 113)],
        _ => &[(MANY_ROWS, 100), (ROWS_128[0], 101), (NARROW, 117)],
    }
}

/// How long a product of `x[M, K]` in halves with `w[N, K]` in floats takes by cooperative matrices: products of numbers that the
/// multiprocessor with most of them would make meanwhile in the fastest tiles. Tiles that [`times`] does not have are smaller, and taken
/// for half as fast. `None` without such matrices.
pub(crate) fn cost(profile: &Profile, [m, n, k]: [usize; 3]) -> Option<f64> {
    let (side, subgroup) = cooperative(profile)?;
    let shape = Shape::choose(profile, [m, n, k], Factors::Plain);
    let known = times(k).iter().find(|(tile, _)| Shape::cooperative(*tile, side, subgroup) == shape);
    let time = known.map_or(200, |(_, time)| *time);
    Some((shape.busiest(m, n) * k * time) as f64 / 100.0)
}

impl Shape {
    /// The shape for a product of `m` by `n` of `k` elements each.
    fn choose(profile: &Profile, [m, n, k]: [usize; 3], factors: Factors) -> Self {
        let bytes = factors == Factors::Bytes;
        let candidates = match factors {
            Factors::Bytes => Self::of_bytes(profile, m),
            _ => Self::candidates(profile, [m, n, k], factors == Factors::Plain),
        };
        let enough = if m <= 32 { ENOUGH_FOR_READING } else { ENOUGH_FOR_ARITHMETIC };
        let found = candidates.iter().find(|shape| shape.tiles(m, n).1 >= enough);
        // The baseline's 16 KiB hold the last candidate of every list.
        let (unit, k) = if bytes { (Unit::Bytes, 128) } else { (Unit::F32, 32) };
        found.or(candidates.last()).copied().unwrap_or_else(|| Self::lanes(unit, [16, 64, k]))
    }

    /// The shapes for bytes that fit the profile and the number of rows, the widest first: where they fit, an invocation unpacks
    /// a sub-block of `w` a round.
    fn of_bytes(profile: &Profile, m: usize) -> Vec<Self> {
        let tiles: &[[u32; 3]] = match m {
            0..=16 => &[[16, 64, 128]],
            17..=32 => &[[32, 64, 128]],
            33..=64 => &[[64, 64, 128], [64, 64, 64]],
            _ => &[[128, 128, 64], [128, 128, 32], [64, 64, 128], [64, 64, 64]],
        };
        let fits = |shape: &Self| shape.fits(&profile.limits);
        tiles.iter().map(|&tile| Self::lanes(Unit::Bytes, tile)).filter(fits).collect()
    }

    /// The shape for many rows and plain weights, K at most [`NARROW_K`]: where the busiest multiprocessor has least to do.
    /// (MiniLM's products on an H100, each in a loop of its own, us with [`FEW_ROUNDS`] and [`NARROW`]. 8192 rows: QKV 44, 46; attention's
    /// output 19, 16.6; up 57, 61. 4608 rows: QKV 28, 31; output 10.7, 16.5; up 38, 40. With K 1536, down, with [`MANY_ROWS`],
    /// `ROWS_128[0]` and [`NARROW`]: 55, 55, 48; 32, 28, 47.)
    fn of_many([m, n, k]: [usize; 3], side: u32, subgroup: u32, limits: &Limits) -> Option<Self> {
        let shapes = times(k).iter().map(|&(tile, time)| (Self::cooperative(tile, side, subgroup), tile, time));
        let enough = |shape: &Self, tile| {
            shape.tiles(m, n).1 >= if tile == MANY_ROWS { ENOUGH_OF_MANY } else { ENOUGH_FOR_ARITHMETIC }
        };
        let found = shapes.filter(|(shape, tile, _)| enough(shape, *tile) && shape.fits(limits));
        found.min_by_key(|(shape, _, time)| shape.busiest(m, n) * time).map(|(shape, ..)| shape)
    }

    /// The shapes that fit the profile and the product, the best first.
    fn candidates(profile: &Profile, [m, n, k]: [usize; 3], plain: bool) -> Vec<Self> {
        let limits = &profile.limits;
        let mut shapes: Vec<Self> = Vec::new();
        if let Some((side, subgroup)) = cooperative(profile) {
            // Of 64 or 128 rows a tile, what pads m less, where that saves a fifth.
            let smaller = 5 * m.next_multiple_of(4 * side as usize) <= 4 * m.next_multiple_of(8 * side as usize);
            let tiles = match m.div_ceil(side as usize) {
                0..=1 => &ROWS_16[..],
                2 => &ROWS_32,
                3..=4 => &ROWS_64,
                _ if smaller => &ROWS_64,
                _ => &ROWS_128,
            };
            if plain && m > MANY && k <= NARROW_K {
                shapes.extend(Self::of_many([m, n, k], side, subgroup, limits));
            }
            let many = [FEW_ROUNDS, MANY_ROWS].map(|tile| Self::cooperative(tile, side, subgroup));
            let enough = |shape: &Self| m > MANY && shape.tiles(m, n).1 >= ENOUGH_OF_MANY;
            // Few columns leave half a card's work of either: there more workgroups are better.
            let few = k <= FEW && many[0].tiles(m, n).1 >= 2 * ENOUGH_OF_MANY;
            shapes.extend(many.into_iter().skip(if few { 0 } else { 1 }).filter(enough));
            shapes.extend(tiles.iter().map(|&tile| Self::cooperative(tile, side, subgroup)));
        }
        let fits = |shape: &Self| shape.fits(limits);
        shapes.retain(fits);
        if shapes.is_empty() {
            let unit = if profile.features.f16 { Unit::F16 } else { Unit::F32 };
            // The deeper tile has a sub-block of w for every invocation to dequantise.
            let tiles: &[[u32; 3]] = match m {
                0..=16 => &[[16, 64, 32]],
                17..=32 => &[[32, 64, 32]],
                33..=64 => &[[64, 64, 32]],
                _ => &[[128, 128, 64], [128, 128, 32], [128, 64, 32], [64, 64, 32]],
            };
            shapes.extend(tiles.iter().map(|&tile| Self::lanes(unit, tile)));
            shapes.retain(fits);
        }
        shapes
    }

    /// Columns of an invocation, without cooperative matrices: with 8 rows, 16 loads serve 64 dot products of four.
    fn cols(&self) -> u32 {
        if self.tile[1] == 128 { 8 } else { 4 }
    }

    fn lanes(unit: Unit, tile: [u32; 3]) -> Self {
        Self { unit, tile, workgroup: 256, groups: [1; 3], parts: [1; 2] }
    }

    fn cooperative((groups, parts, k): CooperativeTile, side: u32, subgroup: u32) -> Self {
        Self {
            unit: Unit::Cooperative { side, subgroup },
            tile: [groups[0] * parts[0] * side, groups[1] * parts[1] * side, k],
            workgroup: groups.iter().product::<u32>() * subgroup,
            groups,
            parts,
        }
    }

    /// Tiles along M, and all of them.
    fn tiles(&self, m: usize, n: usize) -> (usize, usize) {
        let tiles_m = m.div_ceil(self.tile[0] as usize);
        (tiles_m, tiles_m * n.div_ceil(self.tile[1] as usize))
    }

    /// Sums of the multiprocessor that has most of them.
    fn busiest(&self, m: usize, n: usize) -> usize {
        self.tiles(m, n).1.div_ceil(MULTIPROCESSORS) * (self.tile[0] * self.tile[1]) as usize
    }

    /// Whether no tile reaches over an edge of `m` by `n`.
    fn divides(&self, m: usize, n: usize) -> bool {
        m.is_multiple_of(self.tile[0] as usize) && n.is_multiple_of(self.tile[1] as usize)
    }

    fn fits(&self, limits: &Limits) -> bool {
        self.workgroup_bytes() <= limits.max_workgroup_bytes && self.workgroup <= limits.max_workgroup_invocations
    }

    /// Workgroup memory that the shader declares.
    fn workgroup_bytes(&self) -> u32 {
        let [m, n, k] = self.tile;
        match self.unit {
            Unit::F32 => (m + n) * k * 4,
            Unit::F16 => (m + n) * k * 2,
            // Of each 32 their bytes and two floats.
            Unit::Bytes => (m + n) * (k / 32) * 40,
            Unit::Cooperative { side, subgroup } => (m + n) * (k + 8) * 2 + self.workgroup / subgroup * side * side * 4,
        }
    }
}

/// Side of the cooperative matrices to use and size of the subgroups that hold them. Not on Metal: naga 30 loads them
/// from arrays of scalars only there, and storing tiles one half at a time costs what the matrices gain.
pub(crate) fn cooperative(profile: &Profile) -> Option<(u32, u32)> {
    let has = |side: u32| {
        let wanted = CooperativeMatrix { m: side, n: side, k: side, ab: Element::F16, acc: Element::F32 };
        profile.cooperative_matrices.contains(&wanted)
    };
    let side = [16, 8].into_iter().find(|&side| has(side))?;
    let usable = profile.features.f16 && profile.backend == Backend::Vulkan;
    profile.fixed_subgroup().filter(|_| usable).map(|subgroup| (side, subgroup))
}

/// The WGSL types of f16 factors and f32 sums of a side.
pub(super) fn matrices(side: u32) -> [&'static str; 3] {
    match side {
        16 => ["coop_mat16x16<f16, A>", "coop_mat16x16<f16, B>", "coop_mat16x16<f32, C>"],
        _ => ["coop_mat8x8<f16, A>", "coop_mat8x8<f16, B>", "coop_mat8x8<f32, C>"],
    }
}

impl Matmul {
    /// `y = f(column of y, what y holds, x · wᵀ)` on the host.
    fn finished(&self, host: &mut Host, f: impl Fn(usize, f64, f64) -> f64) -> Result<()> {
        let products = matvec::products(host, &self.w, &self.x.clone().into())?;
        let mut y = host.floats(&self.y)?;
        for (row, products) in y.chunks_exact_mut(self.y.cols()).zip(products.chunks_exact(self.w.rows().max(1))) {
            for (i, (y, &product)) in row[self.y_offset..].iter_mut().zip(products).enumerate() {
                *y = f(self.y_offset + i, f64::from(*y), product) as f32;
            }
        }
        match self.y.dtype() {
            DType::F16 => Activations::F16(self.y.clone()).set(host, &y),
            _ => host.set(&self.y, &y),
        }
    }

    fn shape(&self, profile: &Profile) -> Shape {
        let factors = match self.x.is_q8() {
            true => Factors::Bytes,
            false if self.w.dtype().is_quantized() => Factors::Unpacked,
            false => Factors::Plain,
        };
        Shape::choose(profile, [self.x.dims().0, self.w.rows(), self.w.cols()], factors)
    }
}

impl Kernel for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn check(&self) -> Result<()> {
        let (m, cols) = self.x.dims();
        let padded = layout::padded_cols(self.w.dtype(), cols);
        let halves = self.y.dtype() == DType::F16;
        expect("matmul", halves || self.y.dtype() == DType::F32, || {
            format!("y is {}, expected F32 or F16", self.y.dtype())
        })?;
        matvec::check_formats("matmul", &self.w, &self.x)?;
        expect("matmul", !halves || !self.accumulate && self.y.cols().is_multiple_of(BLOCK), || {
            format!("y is F16 of {} columns, expected a multiple of {BLOCK} and sums that are not added", self.y.cols())
        })?;
        expect("matmul", !halves || self.w.rows().is_multiple_of(4) && self.y_offset.is_multiple_of(4), || {
            format!("y is F16 and gets {} columns from {} on, expected multiples of 4", self.w.rows(), self.y_offset)
        })?;
        self.x.check("matmul", "x", m, cols)?;
        expect(
            "matmul",
            self.w.cols() == padded && cols.is_multiple_of(8) && padded.is_multiple_of(32) && cols > 0,
            || format!("w has {} columns, expected {padded} for x of {cols}, a multiple of 8", self.w.cols()),
        )?;
        expect("matmul", m > 0 && self.w.rows() > 0, || "a side without rows, expected at least one".to_owned())?;
        expect("matmul", self.y.rows() == m && self.y_offset + self.w.rows() <= self.y.cols(), || {
            format!("y has shape {:?}, expected {m} rows of {} from {}", self.y.shape(), self.w.rows(), self.y_offset)
        })
    }

    fn runs_on(&self, profile: &Profile) -> bool {
        self.y.dtype() != DType::F16 || profile.features.f16
    }

    fn spec(&self, profile: &Profile) -> Spec {
        self.spec_of(self.shape(profile), profile)
    }

    fn params(&self) -> Params {
        Uniform {
            m: self.x.dims().0 as u32,
            n: self.w.rows() as u32,
            y_stride: self.y.cols() as u32,
            y_offset: self.y_offset as u32,
            accumulate: self.accumulate.into(),
        }
        .into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.shape(profile).tiles(self.x.dims().0, self.w.rows()).1, profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.w), self.x.binding(false), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        self.finished(host, |_, before, sum| if self.accumulate { before + sum } else { sum })
    }
}

impl Matmul {
    fn spec_of(&self, shape: Shape, profile: &Profile) -> Spec {
        let [tile_m, tile_n, tile_k] = shape.tile;
        // In tiles of 64 and more columns beside quantised weights loads of 8 bytes are faster: Q4_0's QKV takes 7.5 ms and not 8.2.
        let wide = matches!(shape.unit, Unit::Cooperative { .. }) && (tile_k == 32 || !self.w.dtype().is_quantized());
        let mut spec = Spec::new("matmul", Target::of(profile))
            .constant("K", self.w.cols() as u32)
            .constant("X_COLS", self.x.dims().1 as u32)
            .constant("ROW_VEC4", (layout::row_bytes(self.w.dtype(), self.w.cols()) / 16) as u32)
            .constant("WORKGROUP", shape.workgroup)
            .constant("TILE_M", tile_m)
            .constant("TILE_N", tile_n)
            .constant("TILE_K", tile_k)
            // At 512 rows 7B's F16 prompts lost 4 % with it.
            .constant("WHOLE", self.x.dims().0 > MANY && shape.divides(self.x.dims().0, self.w.rows()))
            .slot("weights", format!("weights/{}", self.w.dtype()))
            .slot("finish", "matmul/finish/none")
            .slot(
                "x",
                match self.x {
                    Activations::F16(_) if wide => "matmul/x_f16_wide",
                    Activations::F16(_) => "matmul/x_f16",
                    Activations::Q8(_) => "matmul/x_q8",
                    _ => "matmul/x_f32",
                },
            )
            .trusted();
        if self.y.dtype() == DType::F16 {
            spec = spec.flag(Flag::F16).flag(Flag::HALVES);
        }
        spec = match shape.unit {
            Unit::F32 => return spec.constant("COLS", shape.cols()).alias("Vec4", "vec4<f32>"),
            Unit::Bytes => return spec.constant("COLS", shape.cols()).flag(Flag::DOT4),
            Unit::F16 => {
                return spec.constant("COLS", shape.cols()).flag(Flag::F16).alias("Vec4", "vec4<f16>");
            }
            Unit::Cooperative { side, subgroup } => {
                let [a, b, c] = matrices(side);
                // Measured of these alone.
                let many = self.x.dims().0 > MANY && !self.w.dtype().is_quantized();
                let spec = if many { spec.inputs_writable() } else { spec };
                spec.flag(Flag::F16)
                    .flag(Flag::COOP_MATRIX)
                    .alias("Vec4", "vec4<f16>")
                    .alias("MatA", a)
                    .alias("MatB", b)
                    .alias("MatC", c)
                    .constant("SIDE", side)
                    .constant("SUBGROUP", subgroup)
            }
        };
        let [groups_m, groups_n, groups_k] = shape.groups;
        spec.constant("GROUPS_M", groups_m)
            .constant("GROUPS_N", groups_n)
            .constant("GROUPS_K", groups_k)
            .constant("PARTS_M", shape.parts[0])
            .constant("PARTS_N", shape.parts[1])
    }
}

/// Cases for the harness: few pipelines, many shapes, because software Vulkan compiles one for a second.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add_of = |dtype: DType, [m, n, k]: [usize; 3], accumulate: bool, [y_offset, gap]: [usize; 2], halves: bool| {
        let mut builder = CaseBuilder::new((m * n * k) as u64);
        let Ok(w) = builder.weight(dtype, n, k) else { return };
        let mut values = builder.normals(m * k);
        // Where both factors are exact in f16, only the order of the f32 sums differs. Otherwise f16 tiles round each to
        // 11 bits, a relative error of about 2^-12 / √3 each: an NMSE of about 4e-8, and 1e-6 leaves room for cancellation.
        let tolerance = if matches!(dtype, DType::F16 | DType::BF16) {
            values.iter_mut().for_each(|v| *v = half::f16::from_f32(*v).to_f32());
            1e-11
        } else {
            1e-6
        };
        let x = match halves {
            true => Activations::F16(builder.halves(&[m, k], &values)),
            false => Activations::F32(builder.floats(&[m, k], &values)),
        };
        let shape = [m, y_offset + n + gap];
        let y = if accumulate { builder.random(&shape) } else { builder.output(&shape, Compare::Nmse(tolerance)) };
        if accumulate {
            builder.updated(&y, Compare::Nmse(tolerance));
        }
        let name = format!("{dtype} {m}x{n}x{k}{}{}", if halves { " f16" } else { "" }, if accumulate { " +=" } else { "" });
        cases.push(builder.case(name, Matmul { w, x, y, y_offset, accumulate }));
    };
    for dtype in [DType::F32, DType::Q4_0, DType::Q6_K] {
        add_of(dtype, [37, 72, 256], false, [0, 0], true);
    }
    add_of(DType::Q4_K, [256, 128, 512], true, [4, 124], true);
    // Halves by 16 bytes, whose last tile along K is not whole.
    for size in [[40, 72, 96], [130, 72, 96], [600, 6_540, 96], [520, 4_928, 96], [520, 5_000, 800]] {
        add_of(DType::F16, size, false, [0, 0], true);
    }
    let mut add = |dtype, size, accumulate, place| add_of(dtype, size, accumulate, place, false);
    for dtype in DType::WEIGHTS {
        add(dtype, [17, 72, 256], false, [0, 0]);
        add(dtype, [20, 33, 256], true, [3, 4]);
    }
    for m in [1, 7, 33, 130] {
        for n in [1, 65, 200] {
            add(DType::F16, [m, n, 72], m == 7, [0, n % 3]);
        }
    }
    // Tails of x short of a sub-block; tiles wholly within y; many rounds.
    add(DType::F32, [9, 40, 40], false, [4, 4]);
    add(DType::F16, [256, 128, 72], true, [4, 124]);
    add(DType::Q8_0, [64, 128, 352], true, [0, 0]);
    add(DType::Q4_0, [2, 3, 4096], false, [0, 0]);
    // Enough tiles for the wide shapes of every number of rows, whole ones and tails.
    let narrow = [(8, 6_150), (8, 12_290), (8, 24_600), (16, 6_144), (16, 12_288), (20, 12_288), (20, 24_576)];
    for (m, n) in narrow.into_iter().chain([(64, 12_300), (500, 3_085), (512, 3_072), (600, 6_540), (520, 9_860)]) {
        add(DType::F16, [m, n, 40], [20, 512].contains(&m), [0, 0]);
    }
    // Few rounds with matrices of 16, and many with those of 8.
    add(DType::F16, [520, 9_860, 8], false, [0, 0]);
    add(DType::F16, [520, 1_400, 800], false, [0, 0]);
    // Tiles of many rows that divide the product.
    add(DType::F16, [640, 3_328, 8], false, [0, 0]);
    add(DType::F16, [640, 1_920, 40], true, [4, 4]);
    add(DType::Q4_0, [640, 4_992, 32], false, [0, 0]);
    // More rows of x than of w, whose tiles come in another order, with bounds and without.
    add(DType::F16, [1300, 200, 40], false, [0, 0]);
    add(DType::F16, [1280, 384, 8], true, [4, 4]);
    add(DType::Q4_0, [700, 100, 32], false, [0, 0]);
    // Narrow tiles of both, and the wide ones of prompts.
    add(DType::F16, [520, 4_900, 8], false, [0, 0]);
    add(DType::F16, [576, 960, 40], false, [0, 0]);
    add(DType::Q4_0, [600, 6_540, 64], true, [0, 0]);
    // Exact sums of bytes: only the order of the f32 sums over blocks differs.
    let mut add = |dtype: DType, [m, n, k]: [usize; 3], accumulate: bool, [y_offset, gap]: [usize; 2]| {
        let mut builder = CaseBuilder::new((m * n * k) as u64 + 2);
        let Ok(w) = builder.weight(dtype, n, k) else { return };
        let x = matvec::case_input(&mut builder, m, k, Input::Q8, false).values;
        let y = builder.random(&[m, y_offset + n + gap]);
        builder.updated(&y, Compare::Nmse(1e-11));
        let name = format!("{dtype} {m}x{n}x{k} q8{}", if accumulate { " +=" } else { "" });
        cases.push(builder.case(name, Matmul { w, x, y, y_offset, accumulate }));
    };
    for dtype in DType::WEIGHTS.into_iter().filter(|dtype| dtype.is_quantized()) {
        add(dtype, [17, 72, 256], dtype == DType::Q4_1, [3, 4]);
    }
    // Every height of tiles, blocks that are no whole rounds, and enough tiles for the widest.
    let sizes = [(9, 70, 96), (33, 65, 160), (70, 130, 32), (512, 3_072, 64), (500, 3_085, 96), (640, 1_280, 64)];
    for (m, n, k) in sizes {
        add(DType::Q4_0, [m, n, k], m == 500, [0, n % 2]);
    }
    cases.extend(bias::cases());
    cases.extend(swiglu::cases());
    cases.extend(best::cases());
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use super::super::q8::Q8;
    use crate::tensor::Storage;

    fn software(cooperative: bool) -> Profile {
        let mut profile = Profile::by_name("h100").unwrap();
        profile.name = "software".to_owned();
        profile.limits.max_workgroup_bytes = 32768;
        profile.subgroup = crate::profile::Subgroup { min: 8, max: 8 };
        let shape = CooperativeMatrix { m: 8, n: 8, k: 8, ab: Element::F16, acc: Element::F32 };
        profile.cooperative_matrices = if cooperative { vec![shape] } else { Vec::new() };
        profile
    }

    #[test]
    fn the_variant_follows_from_profile_and_shape() {
        let cooperative = Unit::Cooperative { side: 16, subgroup: 32 };
        for (name, m, n, unit, tile) in [
            ("h100", 512, 4096, cooperative, [128, 128, 64]),
            ("h100", 512, 22016, cooperative, [128, 128, 64]),
            ("h100", 1024, 4096, cooperative, [128, 128, 32]),
            ("h100", 1024, 1024, cooperative, [64, 128, 64]),
            ("h100", 512, 1024, cooperative, [64, 64, 128]),
            ("h100", 130, 12288, cooperative, [64, 128, 64]),
            ("h100", 64, 22016, cooperative, [64, 128, 64]),
            ("h100", 32, 4096, cooperative, [32, 32, 256]),
            ("h100", 32, 22016, cooperative, [32, 64, 128]),
            ("h100", 9, 128256, cooperative, [16, 128, 64]),
            ("h100", 9, 12288, cooperative, [16, 64, 128]),
            ("rtx-3090", 512, 4096, cooperative, [128, 128, 64]),
            ("rtx-4090", 512, 4096, cooperative, [128, 128, 64]),
            ("gtx-1660", 512, 4096, Unit::F16, [128, 128, 64]),
            ("m2-max", 512, 4096, Unit::F16, [128, 128, 64]),
            ("intel-igpu", 512, 256, Unit::F16, [64, 64, 32]),
            ("rdna", 20, 4096, Unit::F16, [32, 64, 32]),
            ("gtx-1660", 512, 4096, Unit::Bytes, [128, 128, 64]),
            ("rdna", 20, 4096, Unit::Bytes, [32, 64, 128]),
            ("webgpu-baseline", 512, 4096, Unit::Bytes, [128, 128, 32]),
            ("webgpu-baseline", 512, 4096, Unit::F32, [64, 64, 32]),
            ("webgpu-baseline", 12, 4096, Unit::F32, [16, 64, 32]),
        ] {
            let factors = if unit == Unit::Bytes { Factors::Bytes } else { Factors::Plain };
            let shape = Shape::choose(&Profile::by_name(name).unwrap(), [m, n, 4096], factors);
            assert_eq!((shape.unit, shape.tile), (unit, tile), "{name} {m}x{n}");
        }
        // MiniLM's: QKV, attention's output, up and down.
        let h100 = Profile::by_name("h100").unwrap();
        for (m, tiles) in [(8192, [FEW_ROUNDS, NARROW, FEW_ROUNDS, NARROW]), (4608, [FEW_ROUNDS, FEW_ROUNDS, FEW_ROUNDS, ROWS_128[0]])] {
            for ([n, k], tile) in [[1152, 384], [384, 384], [1536, 384], [384, 1536]].into_iter().zip(tiles) {
                let shape = Shape::choose(&h100, [m, n, k], Factors::Plain);
                assert_eq!(shape, Shape::cooperative(tile, 16, 32), "{m}x{n}x{k}");
            }
        }
    }

    #[test]
    fn every_shape_divides_evenly_and_fits() {
        let profiles: Vec<Profile> = Profile::stored().into_iter().chain([software(true), software(false)]).collect();
        let all = [Factors::Plain, Factors::Unpacked, Factors::Bytes];
        for (profile, factors) in profiles.into_iter().flat_map(|profile| all.map(|factors| (profile.clone(), factors))) {
            for m in [1, 9, 16, 17, 32, 33, 64, 65, 130, 512, 576, 4096] {
                for (n, k) in [1, 64, 384, 4096, 22016, 128_256].into_iter().flat_map(|n| [384, 1536, 4096].map(|k| (n, k))) {
                    let shape = Shape::choose(&profile, [m, n, k], factors);
                    let case = format!("{} {m}x{n}x{k} {shape:?}", profile.name);
                    let [tile_m, tile_n, tile_k] = shape.tile;
                    assert!(shape.workgroup_bytes() <= profile.limits.max_workgroup_bytes, "{case}");
                    assert!(shape.workgroup <= profile.limits.max_workgroup_invocations, "{case}");
                    assert!(tile_k.is_multiple_of(32), "{case}");
                    match shape.unit {
                        Unit::Cooperative { side, .. } => {
                            assert!(tile_k.is_multiple_of(shape.groups[2] * side), "{case}: K is split evenly");
                            assert!(shape.parts.iter().all(|part| [1, 2, 4].contains(part)), "{case}: parts");
                            // The narrow tile alone has loads that only some invocations take part in, each of a unit.
                            let narrow = (shape.groups, shape.parts, tile_k) == NARROW;
                            assert!(!narrow || factors == Factors::Plain, "{case}: quantised weights");
                            let even = (tile_m * tile_k / 4).is_multiple_of(shape.workgroup);
                            assert!(even || narrow, "{case}: loads of x");
                            let unit = if narrow { 8 } else { 32 };
                            assert!((tile_n * tile_k / unit).is_multiple_of(shape.workgroup), "{case}: loads of w");
                        }
                        _ => assert!(tile_m.is_multiple_of(shape.workgroup / (tile_n / shape.cols())), "{case}: rows of lanes"),
                    }
                    let kernel = Matmul {
                        w: match factors {
                            Factors::Plain => Tensor::new(Storage::Activation(0), 0, DType::F16, [n, k]),
                            _ => Tensor::new(Storage::Activation(0), 0, DType::Q4_0, [n, k]),
                        },
                        x: match factors {
                            Factors::Bytes => Activations::Q8(Q8 {
                                x: Tensor::new(Storage::Activation(1), 0, DType::U32, Q8::shape(m, k)),
                            }),
                            _ => Activations::F32(Tensor::new(Storage::Activation(1), 0, DType::F32, [m, k])),
                        },
                        y: Tensor::new(Storage::Activation(2), 0, DType::F32, [m, n]),
                        y_offset: 0,
                        accumulate: false,
                    };
                    kernel.check().unwrap();
                    assert_eq!(kernel.shape(&profile), shape, "{case}");
                    let grid = kernel.grid(&profile, 1);
                    assert!(grid.iter().all(|&size| size <= 65535), "{case}: {grid:?}");
                }
            }
        }
    }

    /// The rows, columns and parts of every cooperative tile occur among the cases, with sides of 8 and of 16.
    #[test]
    fn the_cases_reach_every_cooperative_tile() {
        for profile in [software(true), Profile::by_name("h100").unwrap()] {
            let (side, subgroup) = cooperative(&profile).unwrap();
            let unit = Unit::Cooperative { side, subgroup };
            let own = if side == 16 { &best::TILES_16[..] } else { &best::TILES_8 };
            let found: Vec<String> = cases().iter().map(|case| format!("{:?}", case.kernel.spec(&profile))).collect();
            let all = [&ROWS_16[..], &ROWS_32, &ROWS_64, &ROWS_128, &[MANY_ROWS, FEW_ROUNDS, NARROW]].concat();
            // Written by what most products are written by, but for those of one finish alone.
            let all = all.into_iter().map(|tile| (tile, "matmul/finish/none"));
            for ((groups, parts, k), finish) in all.chain(own.iter().map(|&tile| (tile, "matmul/finish/best"))) {
                let wanted = [("GROUPS_M", groups[0]), ("GROUPS_N", groups[1]), ("GROUPS_K", groups[2])];
                let wanted = wanted.into_iter().chain([("PARTS_M", parts[0]), ("PARTS_N", parts[1]), ("TILE_K", k)]);
                let wanted = wanted.map(|(name, value)| format!("{name:?}: U32({value})"));
                let wanted: Vec<_> = wanted.chain([format!("{finish:?}")]).collect();
                let hit = found.iter().any(|spec| wanted.iter().all(|part| spec.contains(part)));
                assert!(hit, "{unit:?}: no case has {wanted:?}");
            }
        }
    }

    /// Tiles of many rows that divide the product occur with every finish, and those that do not.
    #[test]
    fn the_cases_reach_every_finish_with_and_without_bounds() {
        let h100 = Profile::by_name("h100").unwrap();
        let found: Vec<String> = cases().iter().map(|case| format!("{:?}", case.kernel.spec(&h100))).collect();
        for finish in ["none", "bias", "bias_gelu", "swiglu"] {
            for whole in [true, false] {
                let wanted = [format!("\"matmul/finish/{finish}\""), format!("\"WHOLE\": Bool({whole})")];
                assert!(found.iter().any(|spec| wanted.iter().all(|part| spec.contains(part))), "no case has {wanted:?}");
            }
        }
        let bytes = |spec: &&String| spec.contains("matmul/x_q8") && spec.contains("\"WHOLE\": Bool(true)");
        assert!(found.iter().any(|spec| bytes(&spec)), "no case of bytes divides");
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        let tensor = |id, dtype, shape: [usize; 2]| Tensor::new(Storage::Activation(id), 0, dtype, shape);
        let good = Matmul {
            w: tensor(0, DType::F16, [6, 64]),
            x: Activations::F32(tensor(1, DType::F32, [3, 40])),
            y: tensor(2, DType::F32, [3, 8]),
            y_offset: 2,
            accumulate: false,
        };
        good.check().unwrap();
        for (what, kernel) in [
            ("w of", Matmul { w: tensor(0, DType::F16, [6, 32]), ..good.clone() }),
            ("bytes with floats", Matmul {
                w: tensor(0, DType::F16, [6, 64]),
                x: Activations::Q8(Q8 { x: Tensor::new(Storage::Activation(1), 0, DType::U32, Q8::shape(3, 64)) }),
                ..good.clone()
            }),
            ("x short", Matmul { x: Activations::F32(tensor(1, DType::F32, [2, 40])), ..good.clone() }),
            ("K of", Matmul { x: Activations::F32(tensor(1, DType::F32, [3, 44])), ..good.clone() }),
            ("halves from 2", Matmul { y: tensor(2, DType::F16, [3, 32]), ..good.clone() }),
            ("y narrow", Matmul { y_offset: 3, ..good.clone() }),
            ("y short", Matmul { y: tensor(2, DType::F32, [2, 8]), ..good.clone() }),
        ] {
            assert!(kernel.check().is_err(), "{what}");
        }
    }
}
