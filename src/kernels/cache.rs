//! Where keys and values of past positions lie: pages of [`PAGE`] tokens, found through a page table, so that sequences of
//! different lengths share one cache.

use super::kernel::{expect, expect_shape};
use crate::error::Result;
use crate::tensor::Tensor;

/// Tokens of a page.
pub const PAGE: usize = 64;

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heads {
    /// H: query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// KV: key heads, as many as value heads.
    pub kv_heads: usize,
    /// Elements of a head, a multiple of 8 up to 256.
    pub head_dim: usize,
}

impl Heads {
    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// Columns of `qkv`: query heads, then key heads, then value heads.
    pub fn qkv_cols(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// An error unless the numbers are ones that the kernels take.
    ///
    /// # Errors
    /// `Shape`, naming the kernel.
    pub fn check(&self, kernel: &str) -> Result<()> {
        expect(kernel, self.kv_heads > 0 && self.heads > 0 && self.heads.is_multiple_of(self.kv_heads), || {
            format!("{} query heads, expected a multiple of the {} KV heads", self.heads, self.kv_heads)
        })?;
        expect(kernel, (8..=256).contains(&self.head_dim) && self.head_dim.is_multiple_of(8), || {
            format!("head size {}, expected a multiple of 8 up to 256", self.head_dim)
        })
    }
}

/// The shape of a shard's keys, and of its values: `[pages, heads, PAGE, head_dim / 2]` words of two f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Physical pages.
    pub pages: usize,
    /// KV heads of the shard.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl CacheShape {
    /// The tensor's shape, in words.
    pub fn words(&self) -> [usize; 4] {
        [self.pages, self.heads, PAGE, self.head_dim / 2]
    }

    /// The first element (an f16) of a head at a position, whose page is `page`.
    pub fn element(&self, page: usize, head: usize, position: usize) -> usize {
        ((page * self.heads + head) * PAGE + position % PAGE) * self.head_dim
    }
}

/// Keys and values of consecutive KV heads of a layer: all of them, unless a cache is larger than a binding.
#[derive(Clone, Debug)]
pub struct Shard {
    /// `k[pages, kv_count, PAGE, head_dim / 2]`: U32, pairs of f16.
    pub k: Tensor,
    /// `v[pages, kv_count, PAGE, head_dim / 2]`: U32, pairs of f16.
    pub v: Tensor,
    /// The first KV head.
    pub kv_start: usize,
}

impl Shard {
    /// KV heads that it holds.
    pub fn kv_count(&self) -> usize {
        self.k.shape().get(1).copied().unwrap_or(0)
    }

    /// The shape of `k` and of `v`.
    pub fn shape(&self, head_dim: usize) -> CacheShape {
        CacheShape { pages: self.k.shape().first().copied().unwrap_or(0), heads: self.kv_count(), head_dim }
    }

    /// An error unless the tensors hold some of the heads.
    ///
    /// # Errors
    /// `Shape`, naming the kernel and the tensor.
    pub fn check(&self, kernel: &str, heads: &Heads) -> Result<()> {
        let shape = self.shape(heads.head_dim).words();
        expect_shape(kernel, "k_cache", self.k.shape(), &shape)?;
        expect_shape(kernel, "v_cache", self.v.shape(), &shape)?;
        let end = self.kv_start + self.kv_count();
        expect(kernel, self.kv_count() > 0 && end <= heads.kv_heads, || {
            format!("a shard of KV heads {}..{end}, expected some of {}", self.kv_start, heads.kv_heads)
        })
    }
}

/// A row of a plan: which sequence it belongs to, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The sequence's slot.
    pub slot: usize,
    /// The token's position in its sequence.
    pub position: usize,
    /// Whether the row is more than padding.
    pub active: bool,
}

/// The rows of `rows[M, 4]`.
pub fn rows(words: &[u32]) -> Vec<Row> {
    let row = |row: &[u32]| Row { slot: row[1] as usize, position: row[2] as usize, active: row[3] != 0 };
    words.chunks_exact(4).map(row).collect()
}
