//! `y = Σ_s w_s values_s / Σ_s w_s total_s`, `w_s = 2^(top_s - max top)`: joins the splits of
//! [`AttentionDecode`](super::attention_decode::AttentionDecode).

use super::attention_decode::split_ranges;
use super::cache::{PAGE, rows};
use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read};
use super::q8::Activations;
use super::matvec::Input;
use super::rms_norm::f16_output;
use super::testing::{Case, CaseBuilder};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

const WORKGROUP: usize = 256;

/// Joins the splits of every head.
#[derive(Clone, Debug)]
pub struct AttentionMerge {
    /// `partial[M, H, splits, head_dim + 2]`.
    pub partial: Tensor,
    /// `rows[M, 4]`: token, slot, position, active.
    pub rows: Tensor,
    /// `y[M, H · head_dim]`; rows that are not active become zero.
    pub y: Activations,
}

params! {
    struct Uniform { heads: u32 }
}

impl AttentionMerge {
    /// Rows, heads, splits, head size.
    fn dims(&self) -> [usize; 4] {
        let size = |i: usize| self.partial.shape().get(i).copied().unwrap_or(0);
        [size(0), size(1), size(2), size(3).saturating_sub(2)]
    }

    /// Heads of a workgroup: as few as make whole blocks of quantised activations.
    fn heads_at_once(&self) -> usize {
        let head_dim = self.dims()[3];
        // The power of two that divides a multiple of 8 is at least 8.
        if self.y.is_q8() { (32 >> head_dim.trailing_zeros().min(5)).max(1) } else { 1 }
    }
}

impl Kernel for AttentionMerge {
    fn name(&self) -> &'static str {
        "attention_merge"
    }

    fn check(&self) -> Result<()> {
        let (kernel, [count, heads, splits, head_dim]) = (self.name(), self.dims());
        expect(kernel, (8..=256).contains(&head_dim) && head_dim % 8 == 0 && (1..=128).contains(&splits), || {
            format!(
                "partial has shape {:?}, expected [M, H, up to 128 splits, a multiple of 8 up to 256, plus 2]",
                self.partial.shape()
            )
        })?;
        expect_shape(kernel, "partial", self.partial.shape(), &[count, heads, splits, head_dim + 2])?;
        expect_shape(kernel, "rows", self.rows.shape(), &[count, 4])?;
        self.y.check(kernel, "y", count, heads * head_dim)
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let [_, _, splits, head_dim] = self.dims();
        let spec = Spec::new("attention_merge", Target::of(profile))
            .constant("HEAD_DIM", head_dim as u32)
            .constant("SPLITS", splits as u32)
            .constant("HEADS", self.heads_at_once() as u32)
            .constant("WAYS", (WORKGROUP / (head_dim / 2)).clamp(1, 8) as u32)
            .constant("PAGE", PAGE as u32)
            .constant("WORKGROUP", WORKGROUP as u32)
            .trusted();
        let spec = self.y.output(spec);
        if self.y.is_q8() { spec.flag(Flag::DOT4) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform { heads: self.dims()[1] as u32 }.into()
    }

    fn grid(&self, _profile: &Profile, _context: usize) -> [u32; 3] {
        let [count, heads, ..] = self.dims();
        [(heads / self.heads_at_once()) as u32, count as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.rows), read(&self.partial), self.y.binding(true)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let [_, heads, splits, head_dim] = self.dims();
        let partial = host.floats(&self.partial)?;
        let mut y = Vec::new();
        for (r, row) in rows(&host.words(&self.rows)?).into_iter().enumerate() {
            let count = if row.active { split_ranges(row.position, splits).len() } else { 0 };
            for head in 0..heads {
                let width = head_dim + 2;
                let parts = &partial[(r * heads + head) * splits * width..][..count * width];
                let parts = || parts.chunks_exact(width);
                let top = parts().map(|part| f64::from(part[head_dim])).fold(f64::NEG_INFINITY, f64::max);
                let weight = |part: &[f32]| (f64::from(part[head_dim]) - top).exp2();
                let total: f64 = parts().map(|part| weight(part) * f64::from(part[head_dim + 1])).sum();
                for i in 0..head_dim {
                    let sum: f64 = parts().map(|part| weight(part) * f64::from(part[i])).sum();
                    y.push(if count == 0 { 0.0 } else { (sum / total) as f32 });
                }
            }
        }
        self.y.set(host, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Heads, head size, splits, positions; a position of None is a row that is not active.
    let shapes: [(usize, usize, usize, &[Option<u32>]); 8] = [
        (2, 8, 1, &[Some(0)]),
        (4, 8, 4, &[Some(63), None, Some(255)]),
        (3, 24, 3, &[Some(64), Some(200)]),
        (4, 24, 2, &[Some(127), Some(128)]),
        (4, 64, 7, &[Some(0), Some(63), Some(64), Some(400), Some(1000)]),
        (6, 80, 5, &[Some(200), None, Some(319)]),
        (2, 128, 40, &[Some(2559)]),
        (2, 256, 128, &[Some(8191), Some(8192)]),
    ];
    for (index, (heads, head_dim, splits, positions)) in shapes.into_iter().enumerate() {
        // None: halves.
        for kind in [Some(Input::F32), Some(Input::Q8), Some(Input::Tiles), None] {
            let (count, cols) = (positions.len(), heads * head_dim);
            if kind != Some(Input::F32) && !cols.is_multiple_of(32) {
                continue;
            }
            let mut builder = CaseBuilder::new(200 + index as u64);
            let mut values = Vec::new();
            for position in positions {
                let used = position.map_or(0, |position| split_ranges(position as usize, splits).len());
                for part in (0..heads).flat_map(|_| 0..splits) {
                    let mut sums = builder.normals(head_dim);
                    // Maxima far apart, and their totals; what no split wrote is NaN.
                    sums.extend([builder.normal() * 4.0 + 1000.0, 1.0 + builder.normal().abs()]);
                    values.extend(sums.iter().map(|&v| if part < used { v } else { f32::NAN }));
                }
            }
            let partial = builder.floats(&[count, heads, splits, head_dim + 2], &values);
            let row = |p: &Option<u32>| [3, 0, p.unwrap_or(0), u32::from(p.is_some())];
            let words: Vec<u32> = positions.iter().flat_map(row).collect();
            let rows = builder.words(&[count, 4], &words);
            // Up to 128 products and an exponential of a small difference: relative errors near 1e-6.
            let y = kind.map(|kind| kind.output(&mut builder, count, cols, 1e-11));
            let y = y.unwrap_or_else(|| f16_output(&mut builder, count, cols));
            let name = format!("{count}x{heads}x{head_dim} of {splits} to {}", kind.map_or("halves", Input::name));
            cases.push(builder.case(name, AttentionMerge { partial, rows, y }));
        }
    }
    cases
}
