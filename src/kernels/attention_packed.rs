//! `y = softmax(q · kᵀ · scale) · v` of packed texts, each row to all rows of its own text, in tiles of 32 or 64 rows with an
//! online softmax (Dao et al. 2022, FlashAttention).

use super::attention::{KEYS, Tile, is_whole};
use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read};
use super::matmul::{cooperative, matrices};
use super::packed;
use super::q8::Activations;
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// Subgroups that share keys. (MiniLM's six layers with 88 texts of 128 tokens on an H100: 0.247 ms; teams of 2, 3 and 6 0.303, 0.333 and
/// 0.338.)
const TEAM: usize = 4;

/// How the work is done on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// By ordinary arithmetic on tiles of f32 or f16.
    Lanes { f16: bool },
    /// By f16 matrices of `side` × `side` with f32 sums, held by subgroups of a fixed size.
    Cooperative { side: usize, subgroup: usize },
}

impl Unit {
    /// Rows of a workgroup.
    fn queries(self) -> usize {
        match self {
            Unit::Lanes { .. } => 64,
            Unit::Cooperative { side, .. } => TEAM * side,
        }
    }

    /// Bytes of workgroup memory.
    fn workgroup_bytes(self, head_dim: usize) -> usize {
        match self {
            Unit::Lanes { .. } => 16_384,
            Unit::Cooperative { side, subgroup } => Tile::new(self.queries(), head_dim, side, subgroup).bytes,
        }
    }
}

/// Attention within texts.
#[derive(Clone, Debug)]
pub struct AttentionPacked {
    /// `rows[M, 4]`: see [`packed`].
    pub rows: Tensor,
    /// `qkv[M, 3 · H · head_dim]`, F32 or F16: queries, keys, values.
    pub qkv: Tensor,
    /// `y[M, H · head_dim]`, not quantised; rows that are no text's become zero.
    pub y: Activations,
    /// H.
    pub heads: usize,
    /// Whether operands may be rounded to f16 where the device has it; sums are f32.
    pub f16: bool,
}

params! {
    struct Uniform { rows: u32, scale: f32 }
}

impl AttentionPacked {
    /// H · head_dim.
    fn width(&self) -> usize {
        self.y.dims().1
    }

    fn head_dim(&self) -> usize {
        self.width() / self.heads.max(1)
    }

    fn unit(&self, profile: &Profile) -> Unit {
        let head_dim = self.head_dim();
        let lanes = Unit::Lanes { f16: self.f16 && profile.features.f16 };
        let Some((side, subgroup)) = cooperative(profile).filter(|_| self.f16) else { return lanes };
        let (side, subgroup) = (side as usize, subgroup as usize);
        let limits = &profile.limits;
        let unit = Unit::Cooperative { side, subgroup };
        let fits = unit.workgroup_bytes(head_dim) <= limits.max_workgroup_bytes as usize
            && TEAM * subgroup <= limits.max_workgroup_invocations as usize;
        if fits && is_whole(head_dim, side, subgroup) { unit } else { lanes }
    }
}

impl Kernel for AttentionPacked {
    fn name(&self) -> &'static str {
        "attention_packed"
    }

    fn check(&self) -> Result<()> {
        let (name, (m, width)) = (self.name(), self.y.dims());
        expect(name, !self.y.is_q8(), || "y is quantised, expected floats".to_owned())?;
        self.y.check(name, "y", m, width)?;
        expect_shape(name, "rows", self.rows.shape(), &[m, 4])?;
        expect_shape(name, "qkv", self.qkv.shape(), &[m, 3 * width])?;
        expect(name, matches!(self.qkv.dtype(), DType::F32 | DType::F16), || {
            format!("qkv is {}, expected F32 or F16", self.qkv.dtype())
        })?;
        expect(name, m > 0 && self.heads > 0 && self.head_dim() * self.heads == width, || {
            format!("y has {m} rows of {width}, expected rows of {} heads", self.heads)
        })?;
        let head_dim = self.head_dim();
        expect(name, (8..=256).contains(&head_dim) && head_dim.is_multiple_of(8), || {
            format!("heads of {head_dim}, expected a multiple of 8 up to 256")
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = Spec::new("attention_packed", Target::of(profile))
            .constant("HEADS", self.heads as u32)
            .constant("HEAD_DIM", self.head_dim() as u32)
            .slot("qkv", if self.qkv.dtype() == DType::F16 { "attention_packed/qkv_f16" } else { "attention_packed/qkv_f32" })
            .trusted();
        let spec = self.y.output(spec);
        let unit = self.unit(profile);
        let (side, subgroup) = match unit {
            Unit::Lanes { f16: true } => return spec.flag(Flag::F16).alias("Vec4", "vec4<f16>"),
            Unit::Lanes { f16: false } => return spec.alias("Vec4", "vec4<f32>"),
            Unit::Cooperative { side, subgroup } => (side, subgroup),
        };
        let [a, b, c] = matrices(side as u32);
        spec.flag(Flag::F16)
            .flag(Flag::SUBGROUPS)
            .flag(Flag::COOP_MATRIX)
            .alias("MatA", a)
            .alias("MatB", b)
            .alias("MatC", c)
            .constant("SIDE", side as u32)
            .constant("SUBGROUP", subgroup as u32)
            .constant("SHOWN", Tile::new(unit.queries(), self.head_dim(), side, subgroup).shown as u32)
            .constant("TEAM", TEAM as u32)
            .constant("KEYS", KEYS as u32)
    }

    fn params(&self) -> Params {
        let scale = std::f64::consts::LOG2_E / (self.head_dim() as f64).sqrt();
        Uniform { rows: self.y.dims().0 as u32, scale: scale as f32 }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        [self.y.dims().0.div_ceil(self.unit(profile).queries()) as u32, self.heads as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.rows), read(&self.qkv), self.y.binding(true)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (rows, qkv) = (packed::rows(&host.words(&self.rows)?), host.floats(&self.qkv)?);
        let (head_dim, width) = (self.head_dim(), self.width());
        let part = |row: usize, part: usize, head: usize| {
            &qkv[row * 3 * width + part * width + head * head_dim..][..head_dim]
        };
        let mut y = vec![0.0; rows.len() * width];
        for (r, row) in rows.iter().enumerate() {
            for head in 0..self.heads {
                let q = part(r, 0, head);
                let scores: Vec<f64> = (row.start..row.end)
                    .map(|key| {
                        let dot = q.iter().zip(part(key, 1, head)).map(|(&q, &k)| f64::from(q) * f64::from(k));
                        dot.sum::<f64>() / (head_dim as f64).sqrt()
                    })
                    .collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|score| (score - top).exp()).sum();
                let mut sums = vec![0.0; head_dim];
                for (key, score) in (row.start..row.end).zip(scores) {
                    let p = (score - top).exp() / total;
                    sums.iter_mut().zip(part(key, 2, head)).for_each(|(sum, &v)| *sum += p * f64::from(v));
                }
                let out = &mut y[r * width + head * head_dim..][..head_dim];
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
            }
        }
        self.y.set(host, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for f16 in [false, true] {
        // Scores that span hundreds, so that maxima rise from tile to tile; in f16 what it can tell apart.
        let large = if f16 { 1.5 } else { 6.0 };
        for (heads, head_dim, lengths, unused, magnitude, halves) in [
            (1, 8, &[1][..], 0, 1.0, false),
            (2, 32, &[64, 64], 0, 1.0, false),
            (3, 32, &[1, 2, 70, 5, 3, 40, 31, 33], 9, 1.0, false),
            (3, 32, &[1, 2, 70, 5, 3, 40, 31, 33], 9, 1.0, true),
            (2, 64, &[130, 3], 70, 1.0, true),
            (4, 16, &[70, 1, 33], 5, 1.0, true),
            (1, 80, &[10, 90], 1, 1.0, false),
            (1, 256, &[7, 61], 0, 1.0, false),
            (1, 64, &[200], 0, large, false),
        ] {
            let texts: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![1; length]).collect();
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let rows = lengths.iter().sum::<usize>() + unused;
            let Some(words) = packed::pack(&texts, rows) else { continue };
            let mut builder = CaseBuilder::new((head_dim + rows) as u64);
            let width = heads * head_dim;
            let mut values: Vec<f32> = (0..rows * 3 * width).map(|_| builder.normal()).collect();
            for row in values.chunks_exact_mut(3 * width) {
                row[..2 * width].iter_mut().for_each(|v| *v *= magnitude);
            }
            // Sums in f32: relative errors near 1e-6; exponents of 2^x for scores of hundreds are off by 2^-24 times
            // as much. Operands in f16 are off by 2^-12: a score of 10 by 0.003, and with it its weight by as much of
            // itself; large scores by more. Results as halves are off by 2^-12, squared 6e-8.
            let limit = match (f16, magnitude > 1.0) {
                (false, false) => 1e-10,
                (false, true) => 1e-8,
                (true, false) => 3e-6,
                (true, true) => 1e-5,
            };
            let y = match halves {
                true => Activations::F16(builder.halves_output(&[rows, width], Compare::HalfNmse(limit + 1e-7))),
                false => Activations::F32(builder.output(&[rows, width], Compare::Nmse(limit))),
            };
            let kernel = AttentionPacked {
                rows: builder.words(&[rows, 4], &words),
                // What is read exactly has no error of its own.
                qkv: match halves {
                    true => builder.halves(&[rows, 3 * width], &values),
                    false => builder.floats(&[rows, 3 * width], &values),
                },
                y,
                heads,
                f16,
            };
            let large = if magnitude > 1.0 { ", large scores" } else { "" };
            let (f16, halves) = (if f16 { ", f16" } else { "" }, if halves { " from f16 to f16" } else { "" });
            cases.push(builder.case(format!("{lengths:?}+{unused} {heads}x{head_dim}{large}{f16}{halves}"), kernel));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Element;

    #[test]
    fn the_variant_follows_from_profile_and_head() {
        let [h100, gtx, baseline] = ["h100", "gtx-1660", "webgpu-baseline"].map(|name| Profile::by_name(name).unwrap());
        let mut eight = h100.clone();
        eight.cooperative_matrices.retain(|shape| shape.acc == Element::F32);
        for shape in &mut eight.cooperative_matrices {
            (shape.m, shape.n, shape.k) = (8, 8, 8);
        }
        let of_side = |side| Unit::Cooperative { side, subgroup: 32 };
        for (profile, head_dim, f16, expected) in [
            (&eight, 32, true, of_side(8)),
            (&eight, 64, true, of_side(8)),
            (&eight, 40, true, of_side(8)),
            (&eight, 72, true, of_side(8)),
            (&eight, 136, true, Unit::Lanes { f16: true }),
            (&eight, 32, false, Unit::Lanes { f16: false }),
            (&h100, 32, true, of_side(16)),
            (&h100, 40, true, Unit::Lanes { f16: true }),
            (&gtx, 64, true, Unit::Lanes { f16: true }),
            (&baseline, 64, true, Unit::Lanes { f16: false }),
        ] {
            let mut builder = CaseBuilder::new(1);
            let kernel = AttentionPacked {
                rows: builder.words(&[1, 4], &[0, 0, 0, 1]),
                qkv: builder.random(&[1, 3 * head_dim]),
                y: Activations::F32(builder.random(&[1, head_dim])),
                heads: 1,
                f16,
            };
            kernel.check().unwrap();
            assert_eq!(kernel.unit(profile), expected, "{} {head_dim} {f16}", profile.name);
        }
    }
}
