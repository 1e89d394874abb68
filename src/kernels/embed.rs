//! `y[i, :] = w[ids[i], :]`: rows of a table, dequantised.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, linear_grid, read, write};
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

const WORKGROUP: u32 = 64;

/// Rows of a table by number. A table split by rows takes one dispatch a part, each writing the rows that it holds.
#[derive(Clone, Debug)]
pub struct Embed {
    /// `w[count, K]`, K padded as [`layout::padded_cols`] says.
    pub w: Tensor,
    /// The table's row that `w` starts with.
    pub first: usize,
    /// `ids[M, stride]`: the first word of each row is the number.
    pub ids: Tensor,
    /// `y[M, cols]`, cols at most K, a multiple of 4.
    pub y: Tensor,
}

params! {
    struct Uniform { rows: u32, id_stride: u32, first: u32, count: u32 }
}

impl Kernel for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn check(&self) -> Result<()> {
        let (cols, padded) = (self.y.cols(), self.w.cols());
        expect("embed", padded == layout::padded_cols(self.w.dtype(), cols) && padded.is_multiple_of(32), || {
            format!("w has {padded} columns, expected {cols} padded to a multiple of 32")
        })?;
        expect("embed", cols.is_multiple_of(4), || format!("y has {cols} columns, expected a multiple of 4"))?;
        expect("embed", self.ids.rows() == self.y.rows(), || {
            format!("{} ids, expected {}", self.ids.rows(), self.y.rows())
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        Spec::new("embed", Target::of(profile))
            .constant("K", self.w.cols() as u32)
            .constant("COLS", self.y.cols() as u32)
            .constant("ROW_VEC4", (layout::row_bytes(self.w.dtype(), self.w.cols()) / 16) as u32)
            .constant("WORKGROUP", WORKGROUP)
            .slot("weights", format!("weights/{}", self.w.dtype()))
            .trusted()
    }

    fn params(&self) -> Params {
        Uniform {
            rows: self.y.rows() as u32,
            id_stride: self.ids.cols() as u32,
            first: self.first as u32,
            count: self.w.rows() as u32,
        }
        .into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        linear_grid((self.y.rows() * self.w.cols() / 32).div_ceil(WORKGROUP as usize), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.w), read(&self.ids), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (w, ids, mut y) = (host.floats(&self.w)?, host.words::<u32>(&self.ids)?, host.floats(&self.y)?);
        let (padded, cols) = (self.w.cols(), self.y.cols());
        for (row, out) in y.chunks_exact_mut(cols).enumerate() {
            let id = ids[row * self.ids.cols()] as usize;
            if let Some(from) = id.checked_sub(self.first).filter(|&from| from < self.w.rows()) {
                out.copy_from_slice(&w[from * padded..][..cols]);
            }
        }
        host.set(&self.y, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DType::WEIGHTS {
        for (rows, count, cols, first, stride) in [(5, 9, 512, 3, 4), (3, 7, 40, 0, 1)] {
            if dtype.is_quantized() && cols % 256 != 0 {
                continue;
            }
            let mut builder = CaseBuilder::new(dtype as u64);
            let Ok(w) = builder.weight(dtype, count, cols) else { continue };
            // One id below the part and one above it: rows that keep what they held.
            let mut ids: Vec<u32> = (0..rows * stride).map(|_| first as u32 + builder.bits() % count as u32).collect();
            ids[0] = (first as u32).wrapping_sub(1);
            ids[(rows - 1) * stride] = (first + count) as u32;
            let ids = builder.words(&[rows, stride], &ids);
            let y = builder.random(&[rows, cols]);
            // One product and one difference of exactly represented numbers: at most an ulp, 1e-7² = 1e-14.
            builder.updated(&y, Compare::Nmse(1e-13));
            cases.push(builder.case(format!("{dtype} {rows} of {count}x{cols}"), Embed { w, first, ids, y }));
        }
    }
    cases
}
