//! `r[c, n] += Σ_k x[c, k] · w[n, k]`, then `y[c, n] = r[c, n] / h · norm[n]` and `squares[c, b] = Σ (r[c, n] / h)²` of each block
//! of 32: the end of a half layer and the norm before the next in one step, but for the division by the root mean square, which
//! the products that follow do ([`Normed`]), and h with it. h is 16 where y is kept in halves, else 1.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, linear_grid, read, write};
use super::matvec::{self, Input, Shape};
use super::normed::{self, Normed};
use super::q8::{Activations, BLOCK};
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::Spec;
use crate::tensor::Tensor;

/// A matrix times a few columns, added to the residual stream, which is prepared for the next product.
#[derive(Clone, Debug)]
pub struct MatvecResidual {
    /// `w[N, K]`, N a multiple of 32; any weight format.
    pub w: Tensor,
    /// `x[C, K]`, as of [`matvec::Matvec`].
    pub x: Activations,
    /// `norm[D]`: the weight of the norm that follows.
    pub norm: Tensor,
    /// `residual[C, D]`, updated.
    pub residual: Tensor,
    /// The column of the residual where the rows of `w` go, a multiple of 32.
    pub offset: usize,
    /// `y[C, D]`.
    pub y: Activations,
    /// `squares[C, D / 32]`; `None` where `y` is quantised, which has room for them.
    pub squares: Option<Tensor>,
}

params! {
    struct Uniform { first: u32, blocks: u32 }
}

impl MatvecResidual {
    fn shape(&self, profile: &Profile) -> Shape {
        // Of 32 rows few subgroups would be at work: plain weights take one each, whose bytes under way are enough.
        let floats = if self.w.dtype().is_quantized() { 2 } else { 1 };
        Shape::new(&self.x, profile, 32, BLOCK as u32, floats, [1, 2])
    }
}

impl Kernel for MatvecResidual {
    fn name(&self) -> &'static str {
        "matvec_residual"
    }

    fn check(&self) -> Result<()> {
        let kernel = self.name();
        matvec::check(kernel, &self.w, &self.x)?;
        let ((columns, _), width) = (self.x.dims(), self.residual.cols());
        expect_shape(kernel, "residual", self.residual.shape(), &[columns, width])?;
        expect_shape(kernel, "norm", self.norm.shape(), &[width])?;
        let whole = [self.w.rows(), self.offset, width].iter().all(|n| n.is_multiple_of(BLOCK));
        expect(kernel, whole && self.offset + self.w.rows() <= width, || {
            let (rows, offset) = (self.w.rows(), self.offset);
            format!("{rows} rows from {offset} of {width}, expected multiples of {BLOCK} within it")
        })?;
        normed::check_sums(kernel, &self.y, self.squares.as_ref())?;
        if let Some(squares) = &self.squares {
            expect_shape(kernel, "squares", squares.shape(), &[columns, width / BLOCK])?;
        }
        self.y.check(kernel, "y", columns, width)
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = matvec::spec(self.name(), &self.w, &self.x, self.shape(profile), profile)
            .constant("ROWS", self.w.rows() as u32)
            .constant("HEADROOM", u32::from(self.y.headroom()))
            .slot("put_squares", if self.y.is_q8() { "put_squares/within" } else { "put_squares/beside" });
        self.y.output(spec)
    }

    fn params(&self) -> Params {
        Uniform { first: (self.offset / BLOCK) as u32, blocks: (self.residual.cols() / BLOCK) as u32 }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid(self.w.rows() / BLOCK, profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = vec![
            read(&self.w),
            self.x.binding(false),
            read(&self.norm),
            write(&self.residual),
            self.y.binding(true),
        ];
        bindings.extend(self.squares.iter().map(write));
        bindings
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let x = Normed::from(self.x.clone());
        matvec::reference(host, &self.w, &x, &self.residual, self.offset, true)?;
        let (residual, norm) = (host.floats(&self.residual)?, host.floats(&self.norm)?);
        let mut y = self.y.values(host)?;
        let mut squares = normed::sums(host, &self.y, self.squares.as_ref())?;
        let width = norm.len();
        let headroom = f32::from(self.y.headroom());
        let residual: Vec<f32> = residual.iter().map(|value| value / headroom).collect();
        for (at, value) in residual.iter().enumerate().filter(|(at, _)| self.columns().contains(&(at % width))) {
            y[at] = value * norm[at % width];
        }
        for (block, sum) in squares.iter_mut().enumerate().filter(|(b, _)| self.columns().contains(&(b * BLOCK % width))) {
            *sum = residual[block * BLOCK..][..BLOCK].iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() as f32;
        }
        self.y.set(host, &y)?;
        match (&self.y, &self.squares) {
            (Activations::Q8(q8), _) => q8.set_squares(host, &squares),
            (_, Some(beside)) => host.set(beside, &squares),
            _ => Ok(()),
        }
    }
}

impl MatvecResidual {
    /// The columns of the residual that it updates.
    fn columns(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.w.rows()
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |dtype: DType, columns: usize, n: usize, k: usize, [from, to]: [Input; 2]| {
        let mut builder = CaseBuilder::new((n * k + columns) as u64);
        let Ok(w) = builder.weight(dtype, n, k) else { return };
        let x = matvec::case_input(&mut builder, columns, k, from, false).values;
        let norm = builder.random(&[n]);
        let residual = builder.random(&[columns, n]);
        let y = to.output(&mut builder, columns, n, from.nmse());
        // Squares double the relative error.
        builder.updated(&residual, Compare::Nmse(from.nmse()));
        let squares =
            (to != Input::Q8).then(|| builder.output(&[columns, n / BLOCK], Compare::Nmse(10.0 * from.nmse())));
        let name = format!("{dtype} {columns}x{n}x{k} {} to {}", from.name(), to.name());
        cases.push(builder.case(name, MatvecResidual { w, x, norm, residual, offset: 0, y, squares }));
    };
    for dtype in DType::WEIGHTS {
        let kind = if dtype.is_quantized() { Input::Q8 } else { Input::F32 };
        add(dtype, 1, 64, 256, [kind, kind]);
    }
    add(DType::Q4_0, 8, 96, 512, [Input::Q8, Input::Q8]);
    add(DType::Q4_0, 1, 160, 4096, [Input::Q8, Input::Q8]);
    add(DType::Q8_0, 2, 32, 64, [Input::Q8, Input::F32]);
    add(DType::F16, 3, 64, 72, [Input::F32, Input::Q8]);
    add(DType::F16, 2, 64, 72, [Input::F32, Input::F32]);
    add(DType::Q4_0, 8, 96, 1376, [Input::Tiles, Input::Tiles]);
    add(DType::Q4_K, 29, 64, 512, [Input::Tiles, Input::F32]);
    add(DType::Q8_0, 6, 64, 64, [Input::F32, Input::Tiles]);
    // The second part of a matrix in two: the first half of the outputs stays as it was.
    let mut builder = CaseBuilder::new(77);
    if let Ok(w) = builder.weight(DType::Q4_0, 32, 128) {
        let x = matvec::case_input(&mut builder, 2, 128, Input::Q8, false).values;
        let norm = builder.random(&[64]);
        let residual = builder.random(&[2, 64]);
        builder.updated(&residual, Compare::Nmse(1e-11));
        let (y, squares) = (builder.random(&[2, 64]), builder.random(&[2, 2]));
        builder.updated(&y, Compare::Nmse(1e-11));
        builder.updated(&squares, Compare::Nmse(1e-10));
        let (y, squares) = (Activations::F32(y), Some(squares));
        cases.push(builder.case("second part", MatvecResidual { w, x, norm, residual, offset: 32, y, squares }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::super::matvec::products;
    use super::super::normed::Squares;
    use super::super::testing::nmse;
    use super::*;

    /// Residuals of 10⁵, as some models have them in a few columns, pass a half; divided by the root mean square they do not.
    #[test]
    fn residuals_beyond_a_half_are_normalised() -> Result<()> {
        let (rows, width) = (9, 64);
        let mut builder = CaseBuilder::new(5);
        let w = builder.weight(DType::Q8_0, width, width)?;
        let x = matvec::case_input(&mut builder, rows, width, Input::Tiles, false).values;
        let norm = builder.random(&[width]);
        let large: Vec<f32> = builder.normals(rows * width).iter().map(|v| 1e5 * v).collect();
        let residual = builder.floats(&[rows, width], &large);
        let y = Input::Tiles.output(&mut builder, rows, width, 1e-6);
        let squares = builder.output(&[rows, width / BLOCK], Compare::Nmse(1e-6));
        let next = builder.weight(DType::F32, 32, width)?;
        let kernel = MatvecResidual {
            w,
            x,
            norm: norm.clone(),
            residual: residual.clone(),
            offset: 0,
            y: y.clone(),
            squares: Some(squares.clone()),
        };
        kernel.check()?;
        let case = builder.case("large", kernel);
        let mut host = case.host();
        case.kernel.reference(&mut host)?;

        let normed = Normed { squares: Some(Squares::of(&y, Some(&squares), 1e-5)), values: y };
        let found: Vec<f32> = products(&host, &next, &normed)?.iter().map(|&v| v as f32).collect();
        let (residual, norm, next) = (host.floats(&residual)?, host.floats(&norm)?, host.floats(&next)?);
        let mut expected = Vec::new();
        for row in residual.chunks_exact(width) {
            let rms = (row.iter().map(|v| v * v).sum::<f32>() / width as f32).sqrt();
            for weights in next.chunks_exact(width) {
                expected.push(weights.iter().zip(row).zip(&norm).map(|((w, r), n)| w * r * n / rms).sum::<f32>());
            }
        }
        // Rounding each value to a half: at most 2^-11 each, an NMSE below 2^-22 / 3.
        let error = nmse(&found, &expected);
        assert!(error < 1e-7, "NMSE {error:.2e}");
        Ok(())
    }
}
