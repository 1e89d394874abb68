//! Activations as signed bytes for integer dot products: the Rust twin of `shaders/lib/q8.wgsl`, and the tensor that
//! holds them.

use super::host::Host;
use super::kernel::{Binding, expect_shape, read, write};
use crate::error::Result;
use crate::shader::Spec;
use crate::tensor::Tensor;

/// Elements that share a scale.
pub const BLOCK: usize = 32;

/// Quantised activations of M rows of K elements, K a multiple of 32.
#[derive(Clone, Debug)]
pub struct Q8 {
    /// `x[3, M, K / 8]` in words, four a block: its bytes 0 to 15; its bytes 16 to 31; scale, scale times the sum of the bytes,
    /// the sum of squares that [`Squares`](super::normed::Squares) tells of, and 0.
    pub x: Tensor,
}

impl Q8 {
    /// The shape of `x` for `rows` rows of `cols`.
    pub fn shape(rows: usize, cols: usize) -> [usize; 3] {
        [3, rows, cols / 8]
    }

    fn dims(&self) -> (usize, usize) {
        let size = |i: usize| self.x.shape().get(i).copied().unwrap_or(0);
        (size(1), 8 * size(2))
    }

    /// Blocks of all rows.
    pub(super) fn blocks(&self) -> usize {
        self.x.len() / 12
    }

    /// Word `part` of what is kept of each block beside its bytes.
    fn about(&self, host: &Host, part: usize) -> Result<Vec<f32>> {
        let words = host.words::<f32>(&self.x)?;
        Ok(words[8 * self.blocks()..].chunks_exact(4).map(|about| about[part]).collect())
    }

    /// The sums of squares of the blocks on the host.
    pub(super) fn squares(&self, host: &Host) -> Result<Vec<f32>> {
        self.about(host, 2)
    }

    /// Writes the sums of squares of the blocks on the host.
    pub(super) fn set_squares(&self, host: &mut Host, squares: &[f32]) -> Result<()> {
        let mut words = host.words::<u32>(&self.x)?;
        for (about, square) in words[8 * self.blocks()..].chunks_exact_mut(4).zip(squares) {
            about[2] = square.to_bits();
        }
        host.set(&self.x, &words)
    }
}

/// Halves of up to 32 rows in tiles of 16 columns, as cooperative matrices load them: the order that
/// `shaders/lib/skinny.wgsl` takes and `shaders/lib/output/tiles.wgsl` writes.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// `x[K / 16, 16 · tile_rows]` in f16: tiles, each row after row, of every four elements 0, 2, 1 and 3, as quantised weights
    /// come out of their bytes; K a multiple of 32, tile_rows of 16.
    pub x: Tensor,
    /// Rows that count; those of `x` behind them hold anything.
    pub rows: usize,
}

impl Tiles {
    /// The most rows.
    pub const MAX_ROWS: usize = 32;

    /// The shape of `x` for `rows` rows of `cols`.
    pub fn shape(rows: usize, cols: usize) -> [usize; 2] {
        [cols / 16, 16 * rows.next_multiple_of(16)]
    }

    fn cols(&self) -> usize {
        16 * self.x.rows()
    }

    /// Rows of a tile.
    pub(super) fn tile_rows(&self) -> usize {
        self.rows.next_multiple_of(16)
    }

    /// Where the element of a row and a column lies: of every four columns in the order 0, 2, 1, 3.
    fn at(&self, row: usize, col: usize) -> usize {
        (col / 16 * self.tile_rows() + row) * 16 + col % 16 / 4 * 4 + [0, 2, 1, 3][col % 4]
    }
}

/// Activations as a matrix product takes them.
#[derive(Clone, Debug)]
pub enum Activations {
    /// `x[M, K]` in f32.
    F32(Tensor),
    /// `x[M, K]` in f16, K a multiple of 32: what matrix products round their input to in any case.
    F16(Tensor),
    /// Halves in tiles, for few rows on cooperative matrices.
    Tiles(Tiles),
    /// Quantised to bytes, for integer dot products.
    Q8(Q8),
}

impl Activations {
    /// The binding.
    pub fn binding(&self, as_output: bool) -> Binding {
        let bind = if as_output { write } else { read };
        match self {
            Activations::F32(x)
            | Activations::F16(x)
            | Activations::Tiles(Tiles { x, .. })
            | Activations::Q8(Q8 { x }) => bind(x),
        }
    }

    /// Whether they are quantised.
    pub fn is_q8(&self) -> bool {
        matches!(self, Activations::Q8(_))
    }

    /// The file that writes them, in the slot `output` of a shader, and the constants that it takes.
    pub(super) fn output(&self, spec: Spec) -> Spec {
        match self {
            Activations::F32(_) => spec.slot("output", "output/f32"),
            Activations::F16(_) => spec.slot("output", "output/f16"),
            Activations::Q8(q8) => spec.slot("output", "output/q8").constant("OUT_BLOCKS", q8.blocks() as u32),
            Activations::Tiles(tiles) => spec
                .slot("output", "output/tiles")
                .constant("OUT_COLS", tiles.cols() as u32)
                .constant("OUT_ROWS", tiles.tile_rows() as u32),
        }
    }

    /// What rows are divided by, a power of two, before they lie here undivided by their root mean square. A residual stream
    /// may pass a half's 65504, and what is small in it stays above a half's 6e-8 with 16.
    pub(crate) fn headroom(&self) -> u16 {
        if matches!(self, Activations::Tiles(_) | Activations::F16(_)) { 16 } else { 1 }
    }

    /// Rows and elements of a row.
    pub fn dims(&self) -> (usize, usize) {
        match self {
            Activations::F32(x) | Activations::F16(x) => (x.rows(), x.cols()),
            Activations::Tiles(tiles) => (tiles.rows, tiles.cols()),
            Activations::Q8(q8) => q8.dims(),
        }
    }

    /// An error unless they hold `rows` rows of `cols`.
    ///
    /// # Errors
    /// `Shape`, naming kernel and argument.
    pub fn check(&self, kernel: &str, argument: &str, rows: usize, cols: usize) -> Result<()> {
        match self {
            Activations::F32(x) => expect_shape(kernel, argument, x.shape(), &[rows, cols]),
            Activations::F16(x) => {
                super::kernel::expect(kernel, cols.is_multiple_of(BLOCK), || {
                    format!("{argument}: {cols} columns, expected a multiple of {BLOCK} for halves")
                })?;
                expect_shape(kernel, argument, x.shape(), &[rows, cols])
            }
            Activations::Tiles(Tiles { x, rows: count }) => {
                let fits = *count == rows && (1..=Tiles::MAX_ROWS).contains(count) && cols.is_multiple_of(BLOCK);
                super::kernel::expect(kernel, fits, || {
                    let most = Tiles::MAX_ROWS;
                    format!(
                        "{argument}: {count} rows of {cols} in tiles, expected {rows}, 1 to {most}, of a multiple of {BLOCK}"
                    )
                })?;
                expect_shape(kernel, argument, x.shape(), &Tiles::shape(rows, cols))
            }
            Activations::Q8(Q8 { x }) => {
                super::kernel::expect(kernel, cols.is_multiple_of(BLOCK), || {
                    format!("{argument}: {cols} columns, expected a multiple of {BLOCK} for quantised activations")
                })?;
                expect_shape(kernel, argument, x.shape(), &Q8::shape(rows, cols))
            }
        }
    }

    /// The values on the host: `[M, K]`, dequantised.
    ///
    /// # Errors
    /// `Shape` where the host lacks a tensor.
    pub fn values(&self, host: &Host) -> Result<Vec<f32>> {
        match self {
            Activations::F32(x) | Activations::F16(x) => host.floats(x),
            Activations::Tiles(tiles) => {
                let (values, cols) = (host.words::<half::f16>(&tiles.x)?, tiles.cols());
                Ok((0..tiles.rows * cols).map(|i| values[tiles.at(i / cols, i % cols)].to_f32()).collect())
            }
            Activations::Q8(q8) => {
                let (bytes, scales) = (host.bytes(&q8.x)?, q8.about(host, 0)?);
                let mut values = Vec::with_capacity(BLOCK * scales.len());
                for (block, scale) in scales.iter().enumerate() {
                    for half in [block, scales.len() + block] {
                        values.extend(bytes[16 * half..][..16].iter().map(|&q| f32::from(q as i8) * scale));
                    }
                }
                Ok(values)
            }
        }
    }

    /// Writes values `[M, K]` on the host, quantised where these are.
    ///
    /// # Errors
    /// `Shape` where the host lacks a tensor.
    pub fn set(&self, host: &mut Host, values: &[f32]) -> Result<()> {
        match self {
            Activations::F32(x) => host.set(x, values),
            Activations::F16(x) => {
                let halves: Vec<half::f16> =
                    values.iter().map(|v| half::f16::from_f32(v.clamp(-65504.0, 65504.0))).collect();
                host.set(x, &halves)
            }
            Activations::Tiles(tiles) => {
                let mut halves: Vec<half::f16> = host.words(&tiles.x)?;
                for (i, value) in values.iter().enumerate() {
                    let at = tiles.at(i / tiles.cols(), i % tiles.cols());
                    halves[at] = half::f16::from_f32(value.clamp(-65504.0, 65504.0));
                }
                host.set(&tiles.x, &halves)
            }
            Activations::Q8(Q8 { x }) => host.set(x, &pack(values)),
        }
    }
}

/// The words of [`Q8::x`], without sums of squares, of rows of a multiple of 32 values.
pub fn pack(values: &[f32]) -> Vec<u32> {
    let blocks = values.len() / BLOCK;
    let mut words = vec![0; 12 * blocks];
    for (index, block) in values.chunks_exact(BLOCK).enumerate() {
        let scale = block.iter().fold(0f32, |largest, v| largest.max(v.abs())) / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let bytes: Vec<i8> = block.iter().map(|v| (v * inverse).round_ties_even() as i8).collect();
        for (i, four) in bytes.chunks_exact(4).enumerate() {
            let word = four.iter().rev().fold(0, |word, &q| word << 8 | u32::from(q as u8));
            words[4 * (i / 4 * blocks + index) + i % 4] = word;
        }
        let sum: i32 = bytes.iter().map(|&q| i32::from(q)).sum();
        words[4 * (2 * blocks + index)] = scale.to_bits();
        words[4 * (2 * blocks + index) + 1] = (scale * sum as f32).to_bits();
    }
    words
}
