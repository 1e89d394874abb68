//! Attention of rows that each have a slot of their own, with what leads to it: queries and keys are turned by their
//! positions (see [`RopeCache`]), keys and values put into the cache, and
//! `y = Σ p v / Σ p`, `p = 2^(score - max)`, `score = q · k · scale · log2(e)` over the whole context; or, to let a few rows
//! fill a GPU, `Σ p v`, `max` and `Σ p` over splits of it, which
//! [`AttentionMerge`](super::attention_merge::AttentionMerge) joins.

use super::attention::{Attention, Shape};
use super::cache::PAGE;
use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read, write};
use super::q8::{Activations, BLOCK};
use super::rms_norm::q8_output;
use super::rope_cache::{RopeCache, case_table};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::rope::Pairing;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// Attention for decoding, where rows are few and each is the next of its slot.
#[derive(Clone, Debug)]
pub struct AttentionDecode {
    /// Queries, cache and rows; the queries are not turned yet, and the row's own key and value not in the cache.
    pub attention: Attention,
    /// `rope[256 + ⌈n_ctx / 256⌉, dim / 2, 2]`: (cos, sin), as [`RopeCache::rope`].
    pub rope: Tensor,
    /// Which two elements turn together.
    pub pairing: Pairing,
    /// What comes of it.
    pub output: Output,
}

/// What attention of a row leaves.
#[derive(Clone, Debug)]
pub enum Output {
    /// `partial[M, H, splits, head_dim + 2]`; the shard's heads are written.
    Partial(Tensor),
    /// `y[M, H · head_dim]`; the shard's heads are written. Heads are whole blocks of 32.
    Whole(Activations),
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

/// Workgroups that leave multiprocessors of a large GPU idle.
const ALONE: usize = 128;

/// Positions up to which one workgroup for each of `rows * kv_heads` does as well as splits that have to be merged: more where
/// there are enough of them to fill a GPU.
pub fn short(rows: usize, kv_heads: usize) -> usize {
    if rows * kv_heads > ALONE { 2048 } else { 512 }
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
    /// Tiles of `unroll` times all sides that are under way.
    distance: usize,
    subgroups: bool,
    /// The size of subgroups that join their sums by themselves and hold a block of 32 results.
    spread: Option<usize>,
}

impl AttentionDecode {
    fn cut(&self, profile: &Profile) -> Cut {
        let group = self.attention.heads.group();
        // Registers hold 16 floats of q and of the sums for each query: 8 fill half of them.
        let whole = matches!(self.output, Output::Whole(_));
        // A whole context is short: where heads are few, each has a workgroup of its own, and the keys that they share come
        // from a cache.
        let most = if whole && self.workgroups(1) <= ALONE { 1 } else { group.min(8) };
        let queries = (1..=most).rev().find(|queries| group.is_multiple_of(*queries)).unwrap_or(1);
        let lanes = (self.attention.heads.head_dim / 8).next_power_of_two();
        // Neighbours in a workgroup are neighbours in a subgroup: so it is on every device with one-dimensional workgroups.
        let subgroups = profile.features.subgroups && lanes <= profile.subgroup.min as usize;
        let spread = profile.fixed_subgroup().map(|size| size as usize).filter(|size| subgroups && [32, 64].contains(size));
        // Where workgroups are too few for all of a GPU's multiprocessors, each has registers for two tiles under way.
        let alone = whole && spread.is_some() && queries <= 2 && self.workgroups(queries) <= ALONE;
        // Where they are many, several fit a multiprocessor, one of which begins or ends while another reads: of 1024 invocations
        // one fits.
        let many = whole && spread.is_some() && queries == 1 && !alone;
        let limit = profile.limits.max_workgroup_invocations as usize;
        let most = match (whole, alone, many) {
            (false, ..) => 128,
            (_, true, _) => limit.min(512),
            (_, _, true) => limit.min(256),
            // A workgroup that serves several queries, or has barriers each round, has as many bytes under way as it can.
            _ => limit,
        };
        let distance = if alone { 2 } else { 1 };
        let mut cut = Cut { queries, lanes, workgroup: PAGE * lanes, unroll: 1, distance, subgroups, spread };
        while cut.workgroup > most || self.workgroup_bytes(&cut) > profile.limits.max_workgroup_bytes as usize {
            cut.workgroup /= 2;
        }
        // Registers hold 8 words of keys and values for each: of the sizes that were tried two are best where several tiles or
        // several workgroups are under way anyway.
        let most = match queries {
            1..=2 if alone || many => 2,
            1..=2 => 8,
            3..=4 => 4,
            _ => 2,
        };
        while cut.unroll < most && cut.workgroup / lanes * cut.unroll * 2 <= PAGE {
            cut.unroll *= 2;
            if self.workgroup_bytes(&cut) > profile.limits.max_workgroup_bytes.min(16384) as usize && !subgroups {
                cut.unroll /= 2;
                break;
            }
        }
        cut
    }

    /// Bytes of workgroup memory: sums, what `reduce` takes, joined heads and, without subgroups, a number for each key and query.
    fn workgroup_bytes(&self, cut: &Cut) -> usize {
        if let Some(subgroup) = cut.spread {
            // A head's sums and two numbers for each subgroup.
            return cut.workgroup.div_ceil(subgroup) * (32 * cut.lanes + 8);
        }
        let plain = if cut.subgroups { 0 } else { 4 * cut.unroll * cut.queries * cut.workgroup };
        let joined = match self.output {
            Output::Partial(_) => 0,
            Output::Whole(_) => 4 * cut.queries * self.attention.heads.head_dim,
        };
        let reduced = if cut.subgroups { cut.workgroup + 3 } else { 4 * cut.workgroup };
        32 * cut.workgroup + reduced + plain + joined
    }

    /// Workgroups of a split.
    fn workgroups(&self, queries: usize) -> usize {
        let a = &self.attention;
        a.shard.kv_count() * (a.heads.group() / queries) * a.count()
    }

    fn splits(&self) -> usize {
        match &self.output {
            Output::Partial(partial) => partial.shape().get(2).copied().unwrap_or(0),
            Output::Whole(_) => 1,
        }
    }

    /// The two steps that this one is made of, the first.
    fn rope_cache(&self) -> RopeCache {
        let a = &self.attention;
        RopeCache {
            qkv: a.qkv.clone(),
            rows: a.rows.clone(),
            rope: self.rope.clone(),
            page_table: a.page_table.clone(),
            shard: a.shard.clone(),
            heads: a.heads,
            pairing: self.pairing,
            turn_queries: true,
        }
    }
}

impl Kernel for AttentionDecode {
    fn name(&self) -> &'static str {
        "attention_decode"
    }

    fn check(&self) -> Result<()> {
        let (a, kernel) = (&self.attention, self.name());
        a.check(kernel)?;
        self.rope_cache().check().map_err(|error| error.context(kernel))?;
        match &self.output {
            Output::Partial(partial) => {
                let splits = self.splits().clamp(1, MAX_SPLITS);
                let shape = [a.count(), a.heads.heads, splits, a.heads.head_dim + 2];
                expect_shape(kernel, "partial", partial.shape(), &shape)
            }
            Output::Whole(y) => {
                expect(kernel, a.heads.head_dim.is_multiple_of(BLOCK), || {
                    format!("a head of {}, expected a multiple of {BLOCK} without splits", a.heads.head_dim)
                })?;
                y.check(kernel, "y", a.count(), a.heads.heads * a.heads.head_dim)
            }
        }
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let Cut { queries, lanes, workgroup, unroll, distance, subgroups, spread } = self.cut(profile);
        let spec = Spec::new("attention_decode", Target::of(profile))
            .constant("HEAD_DIM", self.attention.heads.head_dim as u32)
            .constant("GROUP", self.attention.heads.group() as u32)
            .constant("QUERIES", queries as u32)
            .constant("LANES", lanes as u32)
            .constant("WORKGROUP", workgroup as u32)
            .constant("UNROLL", unroll as u32)
            .constant("DISTANCE", distance as u32)
            .constant("PAGE", PAGE as u32)
            .constant("ROPE_DIM", 2 * self.rope.shape().get(1).copied().unwrap_or(0) as u32)
            .constant("INTERLEAVED", self.pairing == Pairing::Interleaved)
            .trusted();
        let spec = match &self.output {
            Output::Partial(_) => spec.slot("result", "attention/partial"),
            Output::Whole(y) => y.output(spec.slot("result", "attention/whole")),
        };
        match (subgroups, spread) {
            (true, Some(subgroup)) => {
                spec.flag(Flag::SUBGROUPS).flag(Flag::SPREAD).constant("SUBGROUP", subgroup as u32)
            }
            (true, None) => spec.flag(Flag::SUBGROUPS),
            _ => spec,
        }
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
        let a = &self.attention;
        let mut bindings = [&a.rows, &a.page_table, &a.qkv, &self.rope].map(read).to_vec();
        bindings.extend([&a.shard.k, &a.shard.v].map(write));
        match &self.output {
            Output::Partial(partial) => bindings.push(write(partial)),
            Output::Whole(y) => bindings.push(y.binding(true)),
        }
        bindings
    }

    /// Splits past a row's last one, and rows that are not active, become zero; the grid must cover all splits.
    fn reference(&self, host: &mut Host) -> Result<()> {
        let (heads, a) = (self.attention.heads, &self.attention);
        let qkv = host.floats(&a.qkv)?;
        self.rope_cache().reference(host)?;
        match &self.output {
            Output::Partial(tensor) => {
                let (splits, width) = (self.splits(), tensor.cols());
                let mut partial = host.floats(tensor)?;
                a.for_each(host, |r, row, head, attend| {
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
                host.set(tensor, &partial)?;
            }
            Output::Whole(activations) => {
                let mut y = activations.values(host)?;
                a.for_each(host, |r, row, head, attend| {
                    let out = &mut y[(r * heads.heads + head) * heads.head_dim..][..heads.head_dim];
                    out.fill(0.0);
                    if row.active {
                        let part = attend(0..row.position + 1);
                        out.iter_mut().zip(&part.values).for_each(|(out, v)| *out = (v / part.total) as f32);
                    }
                })?;
                activations.set(host, &y)?;
            }
        }
        host.set(&a.qkv, &qkv)
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
    // More workgroups than a large GPU has multiprocessors, with keys of their own and with shared ones.
    let five: Vec<_> = (0..5).map(|slot| on(slot, 60 + 3 * slot)).collect();
    shapes.extend([32, 8].map(|kv_heads| Shape::new(32, kv_heads, 64, &five)));
    shapes.push(Shape { magnitude: 1000.0, ..Shape::new(2, 1, 64, &[on(0, 150)]) });
    shapes
}

/// What outputs may differ by. Scores are f32 sums of about 100 products that reach 50, so that errors of 1e-5 are
/// exponentiated; scores of thousands have errors near 1e-3, though one position nearly always has all the weight.
pub(super) fn tolerance(shape: &Shape) -> f64 {
    if shape.magnitude > 1.0 { 1e-6 } else { 1e-10 }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, shape) in shapes().into_iter().enumerate() {
        let mut slots: Vec<usize> = shape.rows.iter().filter(|row| row.2).map(|row| row.0).collect();
        slots.sort_unstable();
        if slots.windows(2).any(|pair| pair[0] == pair[1]) {
            continue;
        }
        let head_dim = shape.heads.head_dim;
        // All of a head turns, or part of it; both pairings, the second where the halves are no whole chunks too.
        let pairing = if index % 2 == 0 { Pairing::Interleaved } else { Pairing::Half };
        let rope_dim = if index % 3 == 1 { head_dim - head_dim / 4 / 2 * 2 } else { head_dim };
        let pages = shape.context().div_ceil(PAGE);
        let mut numbers = vec![1, 2, pages];
        numbers.sort_unstable();
        numbers.dedup();
        let outputs = numbers.into_iter().map(|splits| (Some(splits), false));
        let whole = [false, true].into_iter().filter(|_| head_dim.is_multiple_of(BLOCK)).map(|q8| (None, q8));
        for (splits, q8) in outputs.chain(whole) {
            let mut builder = CaseBuilder::new(100 + index as u64);
            let attention = shape.build(&mut builder);
            let rope = case_table(&mut builder, rope_dim);
            let (count, heads) = (shape.rows.len(), shape.heads.heads);
            let output = match splits {
                // A shard leaves other heads' results as they are.
                Some(splits) => {
                    let partial = builder.random(&[count, heads, splits, head_dim + 2]);
                    builder.updated(&partial, Compare::Nmse(tolerance(&shape)));
                    Output::Partial(partial)
                }
                None if q8 && shape.shard.len() == shape.heads.kv_heads => {
                    Output::Whole(q8_output(&mut builder, count, heads * head_dim, tolerance(&shape)))
                }
                None => {
                    let y = builder.random(&[count, heads * head_dim]);
                    builder.updated(&y, Compare::Nmse(tolerance(&shape)));
                    Output::Whole(Activations::F32(y))
                }
            };
            // WGSL leaves the direction of rounding to f16 open: an ulp of 2^-10, and sums in f32 may fall on the other side.
            for cache in [&attention.shard.k, &attention.shard.v] {
                builder.updated(cache, Compare::HalfEach(2.0 / 1024.0));
            }
            let name = match splits {
                Some(splits) => format!("{} {pairing:?} in {splits}", shape.name()),
                None => format!("{} {pairing:?} whole{}", shape.name(), if q8 { " q8" } else { "" }),
            };
            let context = 64 * splits.unwrap_or(1).max(pages);
            cases.push(builder.case_at(name, AttentionDecode { attention, rope, pairing, output }, context));
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
                let mut builder = CaseBuilder::new(1);
                let attention = shape.build(&mut builder);
                let outputs = [
                    Output::Partial(attention.qkv.clone()),
                    Output::Whole(Activations::F32(attention.qkv.clone())),
                ];
                for output in outputs {
                let rope = case_table(&mut builder, shape.heads.head_dim);
                let attention = attention.clone();
                let kernel = AttentionDecode { output, rope, pairing: Pairing::Half, attention };
                let cut = kernel.cut(&profile);
                let case = format!("{} {}: {cut:?}", profile.name, shape.name());
                assert!(shape.heads.group().is_multiple_of(cut.queries), "{case}");
                assert!(cut.lanes * 8 >= shape.heads.head_dim, "{case}");
                assert!(PAGE.is_multiple_of(cut.workgroup / cut.lanes * cut.unroll), "{case}");
                let bytes = kernel.workgroup_bytes(&cut);
                assert!(bytes <= profile.limits.max_workgroup_bytes as usize, "{case}: {bytes} bytes");
                assert!(cut.workgroup <= profile.limits.max_workgroup_invocations as usize, "{case}");
                }
            }
        }
    }
}
