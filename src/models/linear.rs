//! Matrix products in a plan: a group of matrices times activations, by `matvec` or `matmul`, a dispatch for each part; and,
//! where rows are few, together with what follows them, so that a layer takes few dependent steps.

use super::weights::{Group, Matrix};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::Kernel;
use crate::kernels::add_bias::AddBias;
use crate::kernels::matmul::{Matmul, MatmulSwiglu, cooperative};
use crate::kernels::matvec::{MAX_COLUMNS, Matvec, wants_tiles};
use crate::kernels::matvec_residual::MatvecResidual;
use crate::kernels::matvec_swiglu::MatvecSwiglu;
use crate::kernels::normed::{Normed, Squares};
use crate::kernels::q8::{Activations, BLOCK, Q8, Tiles};
use crate::kernels::rms_norm::RmsNorm;
use crate::kernels::swiglu::Swiglu;
use crate::plan::Builder;
use crate::tensor::Tensor;

/// New activations for the input of some matrices: tiles of halves for up to 32 rows where the device multiplies cooperative
/// matrices; quantised where all matrices profit, that is where the device has integer dot products, every matrix is quantised,
/// and rows are few or there are no cooperative matrices; f16 where there are many and products round to it; else f32.
pub fn input<'a>(
    builder: &mut Builder,
    rows: usize,
    cols: usize,
    matrices: impl IntoIterator<Item = &'a Matrix>,
) -> Activations {
    let (mut quantized, mut n) = (true, 0);
    for matrix in matrices {
        quantized &= matrix.dtype.is_quantized();
        n += matrix.rows;
    }
    let profile = builder.profile();
    let integer = profile.features.integer_dot
        && (rows <= MAX_COLUMNS || cooperative(profile).is_none())
        && cols.is_multiple_of(BLOCK)
        && quantized;
    if wants_tiles(builder.profile(), rows, n, cols, integer) && cols.is_multiple_of(BLOCK) {
        Activations::Tiles(Tiles { x: builder.activation(DType::F16, Tiles::shape(rows, cols)), rows })
    } else if integer {
        Activations::Q8(Q8 { x: builder.activation(DType::U32, Q8::shape(rows, cols)) })
    } else if builder.profile().features.f16 && rows > MAX_COLUMNS && cols.is_multiple_of(BLOCK) {
        // What the product's tiles round to, in half the bytes.
        Activations::F16(builder.activation(DType::F16, [rows, cols]))
    } else {
        Activations::F32(builder.activation(DType::F32, [rows, cols]))
    }
}

/// Whether `matvec` and its kin take them.
fn few(x: &Activations) -> bool {
    matches!(x, Activations::Tiles(_)) || x.dims().0 <= MAX_COLUMNS
}

/// `y (+)= x · wᵀ` for every matrix of a group.
///
/// # Errors
/// `Shape` where they do not fit together.
pub fn linear(
    builder: &mut Builder,
    label: &str,
    group: &Group,
    x: &Normed,
    y: &Tensor,
    accumulate: bool,
) -> Result<()> {
    for (start, matrix) in group {
        for (first, part) in &matrix.parts {
            let y_offset = start + first;
            let (w, y) = (part.clone(), y.clone());
            match few(&x.values) {
                true => builder.step(label, Matvec { w, x: x.clone(), y, y_offset, accumulate })?,
                false => builder.step(label, Matmul { w, x: x.values.clone(), y, y_offset, accumulate })?,
            }
        }
    }
    Ok(())
}

/// A norm's weight and what is added to the mean square.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[D]`.
    pub weight: &'a Tensor,
    /// Added to the mean square.
    pub eps: f32,
}

/// `residual += x · wᵀ (+ bias)`, then the norm of it for the matrices that follow: in one step where rows are few and the
/// matrix's parts are whole blocks.
///
/// # Errors
/// `Shape` where they do not fit together.
pub fn residual_and_norm<'a>(
    builder: &mut Builder,
    label: &str,
    group: &Group,
    x: Activations,
    bias: Option<&Tensor>,
    residual: &Tensor,
    norm: Norm<'_>,
    next: impl IntoIterator<Item = &'a Matrix>,
) -> Result<Normed> {
    let (rows, width) = (residual.rows(), residual.cols());
    let y = input(builder, rows, width, next);
    let mut parts =
        group.iter().flat_map(|(start, matrix)| matrix.parts.iter().map(move |(first, part)| (start + first, part)));
    let whole = width.is_multiple_of(BLOCK)
        && parts.all(|(first, part)| first.is_multiple_of(BLOCK) && part.rows().is_multiple_of(BLOCK));
    if !few(&x) || bias.is_some() || !whole {
        linear(builder, label, group, &x.into(), residual, true)?;
        if let Some(bias) = bias {
            let kernel = AddBias { bias: bias.clone(), y: residual.clone(), y_offset: 0 };
            builder.step(format!("{label}_bias"), kernel)?;
        }
        let kernel = RmsNorm { x: residual.clone(), weight: norm.weight.clone(), y: y.clone(), eps: norm.eps };
        builder.step(format!("{label}_norm"), kernel)?;
        return Ok(y.into());
    }
    let squares = (!y.is_q8()).then(|| builder.activation(DType::F32, [rows, width / BLOCK]));
    let normed = Normed { squares: Some(Squares::of(&y, squares.as_ref(), norm.eps)), values: y.clone() };
    for (start, matrix) in group {
        for (first, part) in &matrix.parts {
            let kernel = MatvecResidual {
                w: part.clone(),
                x: x.clone(),
                norm: norm.weight.clone(),
                residual: residual.clone(),
                offset: start + first,
                y: y.clone(),
                squares: squares.clone(),
            };
            builder.step(label, kernel)?;
        }
    }
    Ok(normed)
}

/// `silu(x · gateᵀ) · (x · upᵀ)`, gate and up one group: in one step where both are in one part and rows are few, or the device
/// multiplies cooperative matrices.
///
/// # Errors
/// `Shape` where they do not fit together.
pub fn gated<'a>(
    builder: &mut Builder,
    label: &str,
    group: &Group,
    x: &Normed,
    width: usize,
    next: impl IntoIterator<Item = &'a Matrix>,
) -> Result<Activations> {
    let y = input(builder, x.values.dims().0, width, next);
    if let [(_, Matrix { parts, .. })] = &group[..]
        && let [(_, w)] = &parts[..]
        && few(&x.values)
        && !(y.is_q8() && matches!(x.values, Activations::Tiles(_)))
        && width.is_multiple_of(BLOCK)
    {
        builder.step(label, MatvecSwiglu { w: w.clone(), x: x.clone(), y: y.clone() })?;
        return Ok(y);
    }
    if let ([(_, Matrix { parts, .. })], Activations::F16(out), None) = (&group[..], &y, &x.squares)
        && let [(_, w)] = &parts[..]
    {
        let kernel = MatmulSwiglu { w: w.clone(), x: x.values.clone(), y: out.clone() };
        if !few(&x.values) && width.is_multiple_of(BLOCK) && kernel.runs_on(builder.profile()) {
            builder.step(label, kernel)?;
            return Ok(y);
        }
    }
    let gate_up = builder.activation(DType::F32, [x.values.dims().0, 2 * width]);
    linear(builder, label, group, x, &gate_up, false)?;
    builder.step(format!("{label}_swiglu"), Swiglu { x: gate_up, y: y.clone() })?;
    Ok(y)
}
