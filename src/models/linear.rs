//! Matrix products in a plan: a group of matrices times activations, by `matvec` or `matmul`, a dispatch for each part.

use super::weights::{Group, Matrix};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::matmul::Matmul;
use crate::kernels::matvec::{MAX_COLUMNS, Matvec};
use crate::kernels::q8::{Activations, BLOCK, Q8};
use crate::plan::Builder;
use crate::tensor::Tensor;

/// New activations for the input of some matrices: quantised where all of them profit, that is where there are few rows,
/// the device has integer dot products and every matrix is quantised; else f32.
pub fn input<'a>(
    builder: &mut Builder,
    rows: usize,
    cols: usize,
    matrices: impl IntoIterator<Item = &'a Matrix>,
) -> Activations {
    let integer = builder.profile().features.integer_dot && rows <= MAX_COLUMNS && cols.is_multiple_of(BLOCK);
    if integer && matrices.into_iter().all(|matrix| matrix.dtype.is_quantized()) {
        Activations::Q8(Q8 {
            q: builder.activation(DType::U32, [rows, cols / 4]),
            s: builder.activation(DType::F32, [rows, cols / BLOCK, 2]),
        })
    } else {
        Activations::F32(builder.activation(DType::F32, [rows, cols]))
    }
}

/// `y (+)= x · wᵀ` for every matrix of a group.
///
/// # Errors
/// `Shape` where they do not fit together.
pub fn linear(
    builder: &mut Builder,
    label: &str,
    group: &Group,
    x: &Activations,
    y: &Tensor,
    accumulate: bool,
) -> Result<()> {
    for (start, matrix) in group {
        for (first, part) in &matrix.parts {
            let y_offset = start + first;
            let (w, y) = (part.clone(), y.clone());
            match x {
                Activations::F32(x) if x.rows() > MAX_COLUMNS => {
                    builder.step(label, Matmul { w, x: x.clone(), y, y_offset, accumulate })?;
                }
                _ => builder.step(label, Matvec { w, x: x.clone(), y, y_offset, accumulate })?,
            }
        }
    }
    Ok(())
}
