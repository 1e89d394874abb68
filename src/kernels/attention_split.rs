//! `Σ p v`, `max` and `Σ p` over one split of a row's context, `p = 2^(score - max)`, `score = q · k · scale · log2(e)`.
//! Splits let a few rows fill a GPU; [`AttentionMerge`](super::attention_merge::AttentionMerge) joins them.

use super::attention::{Attention, Shape};
use super::cache::PAGE;
use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect_shape, write};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// Attention by splits of the context: for decoding, where rows are few.
#[derive(Clone, Debug)]
pub struct AttentionSplit {
    /// Queries, cache and rows.
    pub attention: Attention,
    /// `partial[M, H, splits, head_dim + 2]`; the shard's heads are written.
    pub partial: Tensor,
}

params! {
    struct Uniform {
        heads: u32,
        kv_heads: u32,
        kv_start: u32,
        kv_count: u32,
        max_pages: u32,
        splits: u32,
        scale: f32,
    }
}

/// Workgroups that keep every GPU busy: 132 multiprocessors with 8 of them each. More only make more to merge.
const WORKGROUPS: usize = 1024;
/// The most splits: what one workgroup merges.
const MAX_SPLITS: usize = 128;

/// The number of splits to make `partial` for, at most one a page of `context` positions.
pub fn splits(context: usize, rows: usize, kv_heads: usize) -> usize {
    let wanted = WORKGROUPS.div_ceil((rows * kv_heads).max(1));
    wanted.min(context.div_ceil(PAGE)).clamp(1, MAX_SPLITS)
}

/// The positions of each split of a row at `position`: whole pages, the same number in all but the last, as few as make
/// at most `splits`.
pub(super) fn split_ranges(position: usize, splits: usize) -> Vec<std::ops::Range<usize>> {
    let pages = position / PAGE + 1;
    let length = pages.div_ceil(splits.max(1)) * PAGE;
    (0..=position).step_by(length).map(|start| start..(start + length).min(position + 1)).collect()
}

/// How the shader is cut for a head size, a group and a device.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    /// Query heads a workgroup serves together.
    queries: usize,
    /// Invocations side by side at a key: its 16-byte chunks, up to a power of two.
    lanes: usize,
    workgroup: usize,
    /// Keys that an invocation loads before it uses the first.
    unroll: usize,
    subgroups: bool,
}

impl AttentionSplit {
    fn cut(&self, profile: &Profile) -> Cut {
        let group = self.attention.heads.group();
        // Registers hold 16 floats of q and of the sums for each query: 8 fill half of them.
        let queries = (1..=group.min(8)).rev().find(|queries| group.is_multiple_of(*queries)).unwrap_or(1);
        let lanes = (self.attention.heads.head_dim / 8).next_power_of_two();
        let workgroup = (PAGE * lanes).min(128);
        let keys = workgroup / lanes;
        // Neighbours in a workgroup are neighbours in a subgroup: so it is on every device with one-dimensional workgroups.
        let subgroups = profile.features.subgroups && lanes <= profile.subgroup.min as usize;
        let in_flight = match (subgroups, queries) {
            (true, 1..=2) => 8,
            (true, 3..=4) => 4,
            (true, _) => 2,
            // Workgroup memory holds a number for each key and query.
            (false, queries) => 8 / queries,
        };
        // Powers of two, so that tiles fill pages exactly.
        let in_flight = if in_flight.is_power_of_two() { in_flight } else { in_flight.next_power_of_two() / 2 };
        Cut { queries, lanes, workgroup, unroll: in_flight.clamp(1, PAGE / keys), subgroups }
    }

    fn splits(&self) -> usize {
        self.partial.shape().get(2).copied().unwrap_or(0)
    }
}

impl Kernel for AttentionSplit {
    fn name(&self) -> &'static str {
        "attention_split"
    }

    fn check(&self) -> Result<()> {
        let a = &self.attention;
        a.check(self.name())?;
        let splits = self.splits().clamp(1, MAX_SPLITS);
        let shape = [a.count(), a.heads.heads, splits, a.heads.head_dim + 2];
        expect_shape(self.name(), "partial", self.partial.shape(), &shape)
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let Cut { queries, lanes, workgroup, unroll, subgroups } = self.cut(profile);
        let spec = Spec::new("attention_split", Target::of(profile))
            .constant("HEAD_DIM", self.attention.heads.head_dim as u32)
            .constant("GROUP", self.attention.heads.group() as u32)
            .constant("QUERIES", queries as u32)
            .constant("LANES", lanes as u32)
            .constant("WORKGROUP", workgroup as u32)
            .constant("UNROLL", unroll as u32)
            .constant("PAGE", PAGE as u32)
            .trusted();
        if subgroups { spec.flag(Flag::SUBGROUPS) } else { spec }
    }

    fn params(&self) -> Params {
        let a = &self.attention;
        Uniform {
            heads: a.heads.heads as u32,
            kv_heads: a.heads.kv_heads as u32,
            kv_start: a.shard.kv_start as u32,
            kv_count: a.shard.kv_count() as u32,
            max_pages: a.page_table.cols() as u32,
            splits: self.splits() as u32,
            scale: a.scale_log2(),
        }
        .into()
    }

    fn grid(&self, profile: &Profile, context: usize) -> [u32; 3] {
        let a = &self.attention;
        let groups = a.heads.group() / self.cut(profile).queries;
        // A row at position p has no more splits than pages, so pages of the context bound them all.
        let splits = self.splits().min(context.div_ceil(PAGE)).max(1);
        [(a.shard.kv_count() * groups) as u32, a.count() as u32, splits as u32]
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = self.attention.bindings();
        bindings.push(write(&self.partial));
        bindings
    }

    /// Splits past a row's last one, and rows that are not active, become zero; the grid must cover all splits.
    fn reference(&self, host: &mut Host) -> Result<()> {
        let (splits, width) = (self.splits(), self.partial.cols());
        let heads = self.attention.heads;
        let mut partial = host.floats(&self.partial)?;
        self.attention.for_each(host, |r, row, head, attend| {
            let out = &mut partial[(r * heads.heads + head) * splits * width..][..splits * width];
            out.fill(0.0);
            let ranges = if row.active { split_ranges(row.position, splits) } else { Vec::new() };
            for (out, range) in out.chunks_exact_mut(width).zip(ranges) {
                let part = attend(range);
                for (out, value) in out.iter_mut().zip(part.values.iter().chain([&part.top, &part.total])) {
                    *out = *value as f32;
                }
            }
        })?;
        host.set(&self.partial, &partial)
    }
}

/// Rows that cases share: borders of pages, several slots, and rows that are not active.
pub(super) fn shapes() -> Vec<Shape> {
    let on = |slot: usize, position: usize| (slot, position, true);
    let off = |slot: usize, position: usize| (slot, position, false);
    let mut shapes = vec![
        Shape::new(2, 2, 8, &[on(0, 0)]),
        Shape::new(4, 4, 8, &[on(1, 63), off(0, 9), on(0, 200)]),
        Shape::new(2, 1, 24, &[on(0, 64)]),
        Shape::new(4, 1, 24, &[on(2, 127), on(0, 5), off(1, 0), on(1, 200)]),
        Shape::new(4, 4, 64, &[on(0, 200)]),
        Shape::new(8, 2, 64, &[on(0, 63), on(1, 64), on(2, 65)]),
        Shape::new(7, 1, 64, &[on(0, 130)]),
        Shape::new(16, 1, 64, &[on(0, 70), on(0, 71)]),
        Shape::new(2, 2, 80, &[on(0, 127), on(0, 128)]),
        Shape::new(8, 1, 80, &[on(0, 140)]),
        Shape::new(2, 2, 128, &[on(0, 200)]),
        Shape::new(8, 2, 128, &[on(1, 64), off(0, 2), on(0, 100)]),
        Shape::new(8, 1, 128, &[on(0, 127)]),
        Shape::new(2, 1, 256, &[on(0, 200), on(1, 0)]),
        Shape::new(2, 2, 256, &[on(0, 70)]),
    ];
    shapes.push(Shape { shard: 1..2, ..Shape::new(4, 2, 64, &[on(0, 100), on(1, 10)]) });
    shapes.push(Shape { shard: 2..4, ..Shape::new(4, 4, 128, &[on(1, 90)]) });
    shapes.push(Shape { magnitude: 1000.0, ..Shape::new(2, 1, 64, &[on(0, 150)]) });
    shapes
}

/// What outputs may differ by. Scores are f32 sums of about 100 products that reach 50, so that errors of 1e-5 are
/// exponentiated; scores of thousands have errors near 1e-3, though one position nearly always has all the weight.
pub(super) fn tolerance(shape: &Shape) -> Compare {
    Compare::Nmse(if shape.magnitude > 1.0 { 1e-6 } else { 1e-10 })
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, shape) in shapes().into_iter().enumerate() {
        let pages = shape.context().div_ceil(PAGE);
        let mut numbers = vec![1, 2, pages];
        numbers.sort_unstable();
        numbers.dedup();
        for splits in numbers {
            let mut builder = CaseBuilder::new(100 + index as u64);
            let attention = shape.build(&mut builder);
            let out = [shape.rows.len(), shape.heads.heads, splits, shape.heads.head_dim + 2];
            // A shard leaves other heads' partial sums as they are.
            let partial = builder.random(&out);
            builder.updated(&partial, tolerance(&shape));
            let name = format!("{} in {splits}", shape.name());
            cases.push(builder.case_at(name, AttentionSplit { attention, partial }, 64 * splits.max(pages)));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_every_position_once() {
        for position in [0, 62, 63, 64, 127, 128, 200, 4095, 4096, 100_000] {
            for splits in [1, 2, 3, 7, 64, 128] {
                let ranges = split_ranges(position, splits);
                let pages = position / PAGE + 1;
                assert!(ranges.len() <= splits.min(pages), "{position} in {splits}: {}", ranges.len());
                let joined: Vec<usize> = ranges.iter().cloned().flatten().collect();
                assert!(joined.iter().copied().eq(0..=position), "{position} in {splits}: {ranges:?}");
                assert!(ranges.iter().all(|range| range.start % PAGE == 0), "{position} in {splits}: {ranges:?}");
            }
        }
    }

    #[test]
    fn splits_fill_a_gpu_and_no_more() {
        for (context, rows, kv_heads, expected) in [
            (1, 1, 32, 1),
            (512, 1, 32, 8),
            (4096, 1, 32, 32),
            (4096, 1, 8, 64),
            (131_072, 1, 8, 128),
            (4096, 32, 32, 1),
        ] {
            assert_eq!(splits(context, rows, kv_heads), expected, "{rows} rows, {kv_heads} heads at {context}");
        }
    }

    #[test]
    fn every_cut_fits_every_profile() {
        for profile in Profile::stored() {
            for shape in shapes() {
                let attention = shape.build(&mut CaseBuilder::new(1));
                let kernel = AttentionSplit { partial: attention.qkv.clone(), attention };
                let cut = kernel.cut(&profile);
                let case = format!("{} {}: {cut:?}", profile.name, shape.name());
                assert!(shape.heads.group().is_multiple_of(cut.queries), "{case}");
                assert!(cut.lanes * 8 >= shape.heads.head_dim, "{case}");
                assert!(PAGE.is_multiple_of(cut.workgroup / cut.lanes * cut.unroll), "{case}");
                let plain = if cut.subgroups { 0 } else { 4 * cut.unroll * cut.queries * cut.workgroup };
                let bytes = 32 * cut.workgroup + 8 * cut.workgroup / cut.lanes + plain;
                assert!(bytes <= profile.limits.max_workgroup_bytes as usize, "{case}: {bytes} bytes");
            }
        }
    }
}
