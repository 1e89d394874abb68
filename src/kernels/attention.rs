//! What the attention kernels share: their arguments, `softmax(q · kᵀ · scale) · v` over ranges of positions in double
//! precision, and the inputs of their cases.

use std::f64::consts::LOG2_E;
use std::ops::Range;

use super::cache::{CacheShape, Heads, PAGE, Row, Shard, rows};
use super::host::Host;
use super::kernel::{Binding, expect, expect_shape, read};
use super::testing::CaseBuilder;
use crate::error::Result;
use crate::tensor::Tensor;

/// Causal attention of M rows to the cached positions of their slots, up to and with their own, for one shard's heads.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `qkv[M, (H + 2 KV) · head_dim]`, queries turned.
    pub qkv: Tensor,
    /// `rows[M, 4]`: token, slot, position, active.
    pub rows: Tensor,
    /// `page_table[slots, max_pages]`.
    pub page_table: Tensor,
    /// The cache that holds the keys and values of all positions attended to.
    pub shard: Shard,
    /// Heads of the layer.
    pub heads: Heads,
    /// Multiplies scores; `1 / √head_dim` in most models.
    pub scale: f32,
}

/// Keys that cooperative matrices take at a time.
pub(super) const KEYS: usize = 32;

/// Workgroup memory that NVIDIA's Vulkan driver gives the workgroups of a multiprocessor together, each of which takes 1 KiB besides:
/// on an H100 two run at once with 24 KiB each, three with 16 and four with 12, but one with 28. A guess for others.
const RESIDENT_BYTES: usize = 54 << 10;

/// How attention by cooperative matrices lies in workgroup memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Matrices of a subgroup's scores that go through it side by side: a half of two, where a multiprocessor then has a workgroup
    /// more.
    pub shown: usize,
    /// Bytes of a workgroup: keys and values, scores and weights, each row with its padding.
    pub bytes: usize,
}

impl Tile {
    /// For a workgroup's queries, in matrices of `side` held by subgroups of a size.
    pub(super) fn new(queries: usize, head_dim: usize, side: usize, subgroup: usize) -> Self {
        let with = |shown: usize| {
            let scores = 4 * side * shown + 16 * (subgroup / side).min(2);
            Self { shown, bytes: 2 * KEYS * (2 * head_dim + 16) + queries * (scores + 2 * KEYS + 16) }
        };
        let (all, one) = (with(KEYS / side), with(1));
        let residents = |tile: Self| RESIDENT_BYTES / (tile.bytes + 1024);
        // Rows of one are whole vectors for those who share them.
        let halved = all.shown == 2 && (side / 4).is_multiple_of(subgroup / side);
        if halved && residents(one) > residents(all) { one } else { all }
    }
}

/// Whether heads divide into matrices. `attention/matrices.wgsl` names 16 of sums, of which larger heads than 128 would leave few
/// registers; a row is shared by whole vectors of four keys.
pub(super) fn is_whole(head_dim: usize, side: usize, subgroup: usize) -> bool {
    let whole = head_dim.is_multiple_of(side) && head_dim <= 128 && head_dim <= 16 * side;
    whole && (side..=KEYS / 4 * side).contains(&subgroup)
}

/// An unnormalised sum over some positions.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// `Σ p v`, `p = 2^(score - top)`.
    pub values: Vec<f64>,
    /// The largest score, times log2(e).
    pub top: f64,
    /// `Σ p`.
    pub total: f64,
}

impl Attention {
    /// M.
    pub fn count(&self) -> usize {
        self.rows.rows()
    }

    /// The scale of scores that are exponents of two.
    pub(super) fn scale_log2(&self) -> f32 {
        (f64::from(self.scale) * LOG2_E) as f32
    }

    /// An error unless the arguments fit together.
    ///
    /// # Errors
    /// `Shape`, naming the kernel and the argument.
    pub(super) fn check(&self, kernel: &str) -> Result<()> {
        self.heads.check(kernel)?;
        self.shard.check(kernel, &self.heads)?;
        expect_shape(kernel, "rows", self.rows.shape(), &[self.count(), 4])?;
        expect_shape(kernel, "qkv", self.qkv.shape(), &[self.count(), self.heads.qkv_cols()])?;
        expect(kernel, self.page_table.shape().len() == 2, || {
            format!("page_table has shape {:?}, expected [slots, max_pages]", self.page_table.shape())
        })?;
        expect(kernel, self.scale.is_finite() && self.scale > 0.0, || {
            format!("scale {}: expected a positive number", self.scale)
        })
    }

    /// The inputs' bindings: rows, page table, qkv, keys, values.
    pub(super) fn bindings(&self) -> Vec<Binding> {
        [&self.rows, &self.page_table, &self.qkv, &self.shard.k, &self.shard.v].map(read).to_vec()
    }

    /// Query heads that this shard's KV heads serve.
    pub(super) fn query_heads(&self) -> Range<usize> {
        let group = self.heads.group();
        self.shard.kv_start * group..(self.shard.kv_start + self.shard.kv_count()) * group
    }

    /// Calls `each(row's number, row, head, attend)` for every row and query head; `attend(positions)` sums over a range.
    pub(super) fn for_each(
        &self,
        host: &Host,
        mut each: impl FnMut(usize, Row, usize, &dyn Fn(Range<usize>) -> Part),
    ) -> Result<()> {
        let head_dim = self.heads.head_dim;
        let (qkv, pages) = (host.floats(&self.qkv)?, host.words::<u32>(&self.page_table)?);
        let (k, v): (Vec<half::f16>, Vec<half::f16>) = (host.words(&self.shard.k)?, host.words(&self.shard.v)?);
        let shape = self.shard.shape(head_dim);
        for (r, row) in rows(&host.words(&self.rows)?).into_iter().enumerate() {
            for head in self.query_heads() {
                let q = &qkv[r * self.heads.qkv_cols() + head * head_dim..][..head_dim];
                let kv = head / self.heads.group() - self.shard.kv_start;
                let at = |position: usize| {
                    let page = pages[row.slot * self.page_table.cols() + position / PAGE] as usize;
                    shape.element(page, kv, position)
                };
                let attend = |positions: Range<usize>| {
                    let score = |position: usize| {
                        let key = &k[at(position)..][..head_dim];
                        let dot: f64 = q.iter().zip(key).map(|(&q, k)| f64::from(q) * k.to_f64()).sum();
                        dot * f64::from(self.scale) * LOG2_E
                    };
                    let scores: Vec<f64> = positions.clone().map(score).collect();
                    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let mut part = Part { values: vec![0.0; head_dim], top, total: 0.0 };
                    for (position, score) in positions.zip(scores) {
                        let p = (score - top).exp2();
                        part.total += p;
                        for (sum, v) in part.values.iter_mut().zip(&v[at(position)..]) {
                            *sum += p * v.to_f64();
                        }
                    }
                    part
                };
                each(r, row, head, &attend);
            }
        }
        Ok(())
    }
}

/// Arguments of a case: a name, heads, the shard's KV heads, rows as (slot, position, active), and what queries are
/// multiplied by.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub heads: Heads,
    pub shard: Range<usize>,
    pub rows: Vec<(usize, usize, bool)>,
    pub magnitude: f32,
}

impl Shape {
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize, rows: &[(usize, usize, bool)]) -> Self {
        let heads = Heads { heads, kv_heads, head_dim };
        Self { heads, shard: 0..kv_heads, rows: rows.to_vec(), magnitude: 1.0 }
    }

    pub fn name(&self) -> String {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let last = self.rows.iter().map(|row| row.1).max().unwrap_or(0);
        let large = if self.magnitude > 1.0 { ", large scores" } else { "" };
        format!("{}x{heads}/{kv_heads}x{head_dim} to {last}, KV {:?}{large}", self.rows.len(), self.shard)
    }

    /// Positions that grids must cover.
    pub fn context(&self) -> usize {
        self.rows.iter().map(|row| row.1 + 1).max().unwrap_or(1)
    }

    /// Random queries, keys and values on shuffled pages. What no row may attend to is as large as f16 goes: finite,
    /// since caches hold nothing else and matrices multiply it by zero.
    pub fn build(&self, builder: &mut CaseBuilder) -> Attention {
        let (heads, head_dim) = (self.heads, self.heads.head_dim);
        let slots = self.rows.iter().map(|row| row.0 + 1).max().unwrap_or(1);
        let max_pages = self.context().div_ceil(PAGE) + 1;
        let mut table: Vec<u32> = (0..(slots * max_pages) as u32).collect();
        for i in (1..table.len()).rev() {
            table.swap(i, builder.bits() as usize % (i + 1));
        }
        let shape = CacheShape { pages: table.len(), heads: self.shard.len(), head_dim };
        let elements = 2 * shape.words().iter().product::<usize>();
        let mut caches = [vec![half::f16::MAX; elements], vec![half::f16::MAX; elements]];
        for slot in 0..slots {
            let of_slot = self.rows.iter().filter(|row| row.0 == slot && row.2);
            for position in 0..of_slot.map(|row| row.1 + 1).max().unwrap_or(0) {
                let page = table[slot * max_pages + position / PAGE] as usize;
                for head in 0..self.shard.len() {
                    for cache in &mut caches {
                        let at = shape.element(page, head, position);
                        cache[at..at + head_dim].fill_with(|| half::f16::from_f32(builder.normal()));
                    }
                }
            }
        }
        let words = |cache: &[half::f16]| bytemuck::pod_collect_to_vec::<half::f16, u32>(cache);
        let [k, v] = caches.map(|cache| builder.words(&shape.words(), &words(&cache)));
        let row =
            |&(slot, position, active): &(usize, usize, bool)| [7, slot as u32, position as u32, u32::from(active)];
        let rows: Vec<u32> = self.rows.iter().flat_map(row).collect();
        let count = self.rows.len();
        let mut qkv = builder.normals(count * heads.qkv_cols());
        qkv.iter_mut().for_each(|v| *v *= self.magnitude);
        Attention {
            qkv: builder.floats(&[count, heads.qkv_cols()], &qkv),
            rows: builder.words(&[count, 4], &rows),
            page_table: builder.words(&[slots, max_pages], &table),
            shard: Shard { k, v, kv_start: self.shard.start },
            heads,
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_go_by_halves_where_that_makes_room() {
        let tile = |queries, head_dim, side, subgroup| {
            let Tile { shown, bytes } = Tile::new(queries, head_dim, side, subgroup);
            (shown, bytes)
        };
        assert_eq!(tile(64, 32, 16, 32), (1, 16_384)); // three instead of two
        assert_eq!(tile(64, 64, 16, 32), (2, 24_576)); // two in any case
        assert_eq!(tile(64, 128, 16, 32), (2, 32_768)); // one
        assert_eq!(tile(32, 32, 8, 32), (4, 12_800)); // four matrices
        assert_eq!(tile(64, 32, 16, 128).0, 2); // a row of one is not whole vectors for eight
    }
}
