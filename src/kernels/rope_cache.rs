//! Turns queries and keys by their positions (Su et al. 2021, RoFormer): a pair (a, b) of elements becomes
//! `(a cos φ - b sin φ, a sin φ + b cos φ)`, φ = position · ω of the pair. Keys and values go to the cache as f16.

use super::cache::{Heads, PAGE, Shard, rows};
use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read, write};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::rope::Pairing;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

const WORKGROUP: u32 = 256;

/// Rotary embedding of a chunk's queries, in place, and its keys and values into one shard of the cache.
#[derive(Clone, Debug)]
pub struct RopeCache {
    /// `qkv[M, (H + 2 KV) · head_dim]`; its query heads are turned in place.
    pub qkv: Tensor,
    /// `rows[M, 4]`: token, slot, position, active.
    pub rows: Tensor,
    /// `rope[256 + ⌈n_ctx / 256⌉, dim / 2, 2]`: (cos, sin) for a position's low byte, then for the rest of it.
    pub rope: Tensor,
    /// `page_table[slots, max_pages]`.
    pub page_table: Tensor,
    /// The shard that is written.
    pub shard: Shard,
    /// Heads of the layer.
    pub heads: Heads,
    /// Which two elements turn together.
    pub pairing: Pairing,
    /// Whether the queries are turned here: in the dispatch of the first shard only.
    pub turn_queries: bool,
}

params! {
    struct Uniform {
        rows: u32,
        heads: u32,
        kv_heads: u32,
        q_heads: u32,
        kv_start: u32,
        kv_count: u32,
        max_pages: u32,
    }
}

impl RopeCache {
    /// Leading elements of a head that turn.
    fn rope_dim(&self) -> usize {
        2 * self.rope.shape().get(1).copied().unwrap_or(0)
    }

    fn q_heads(&self) -> usize {
        if self.turn_queries { self.heads.heads } else { 0 }
    }

    /// The two elements of a pair.
    fn pair(&self, pair: usize) -> (usize, usize) {
        match self.pairing {
            Pairing::Interleaved => (2 * pair, 2 * pair + 1),
            Pairing::Half => (pair, pair + self.rope_dim() / 2),
        }
    }
}

impl Kernel for RopeCache {
    fn name(&self) -> &'static str {
        "rope_cache"
    }

    fn check(&self) -> Result<()> {
        let kernel = self.name();
        self.heads.check(kernel)?;
        self.shard.check(kernel, &self.heads)?;
        let count = self.rows.rows();
        expect_shape(kernel, "rows", self.rows.shape(), &[count, 4])?;
        expect_shape(kernel, "qkv", self.qkv.shape(), &[count, self.heads.qkv_cols()])?;
        let (rope_dim, shape) = (self.rope_dim(), self.rope.shape());
        expect(kernel, shape.len() == 3 && shape[2] == 2 && shape[0] > 256, || {
            format!("rope has shape {shape:?}, expected [257 or more, dim / 2, 2]")
        })?;
        expect(kernel, (2..=self.heads.head_dim).contains(&rope_dim), || {
            format!("{rope_dim} elements turn, expected 2 to the {} of a head", self.heads.head_dim)
        })?;
        expect(kernel, self.page_table.shape().len() == 2, || {
            format!("page_table has shape {:?}, expected [slots, max_pages]", self.page_table.shape())
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        Spec::new("rope_cache", Target::of(profile))
            .constant("HEAD_DIM", self.heads.head_dim as u32)
            .constant("ROPE_DIM", self.rope_dim() as u32)
            .constant("INTERLEAVED", self.pairing == Pairing::Interleaved)
            .constant("PAGE", PAGE as u32)
            .constant("WORKGROUP", WORKGROUP)
            .trusted()
    }

    fn params(&self) -> Params {
        Uniform {
            rows: self.rows.rows() as u32,
            heads: self.heads.heads as u32,
            kv_heads: self.heads.kv_heads as u32,
            q_heads: self.q_heads() as u32,
            kv_start: self.shard.kv_start as u32,
            kv_count: self.shard.kv_count() as u32,
            max_pages: self.page_table.cols() as u32,
        }
        .into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        let units = self.q_heads() * self.rope_dim() / 2 + self.shard.kv_count() * self.heads.head_dim;
        // Rows beyond the limit are taken in turns.
        let rows = (self.rows.rows() as u32).min(profile.limits.max_workgroups_per_dimension);
        [(units as u32).div_ceil(WORKGROUP), rows, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![
            read(&self.rows),
            read(&self.rope),
            read(&self.page_table),
            write(&self.qkv),
            write(&self.shard.k),
            write(&self.shard.v),
        ]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let (rope, pages) = (host.floats(&self.rope)?, host.words::<u32>(&self.page_table)?);
        let rows = rows(&host.words(&self.rows)?);
        let mut qkv = host.floats(&self.qkv)?;
        let mut k_cache: Vec<half::f16> = host.words(&self.shard.k)?;
        let mut v_cache: Vec<half::f16> = host.words(&self.shard.v)?;
        let half_of = |v: f32| half::f16::from_f32(v.clamp(-65504.0, 65504.0));
        let (pairs, shape) = (self.rope_dim() / 2, self.shard.shape(head_dim));
        for (row, x) in rows.iter().zip(qkv.chunks_exact_mut(self.heads.qkv_cols())).filter(|(row, _)| row.active) {
            let turned = |head: &[f32]| {
                let mut out = head.to_vec();
                for i in 0..pairs {
                    let at = |row: usize| {
                        let at = 2 * (row * pairs + i);
                        (f64::from(rope[at]), f64::from(rope[at + 1]))
                    };
                    let (low, high) = (at(row.position % 256), at(256 + row.position / 256));
                    let (cos, sin) = (low.0 * high.0 - low.1 * high.1, low.0 * high.1 + low.1 * high.0);
                    let (first, second) = self.pair(i);
                    let (a, b) = (f64::from(head[first]), f64::from(head[second]));
                    out[first] = (a * cos - b * sin) as f32;
                    out[second] = (a * sin + b * cos) as f32;
                }
                out
            };
            for head in x[..self.q_heads() * head_dim].chunks_exact_mut(head_dim) {
                let out = turned(head);
                head.copy_from_slice(&out);
            }
            let page = pages[row.slot * self.page_table.cols() + row.position / PAGE] as usize;
            for head in 0..self.shard.kv_count() {
                let from = (heads + self.shard.kv_start + head) * head_dim;
                let to = shape.element(page, head, row.position);
                let key = turned(&x[from..from + head_dim]);
                let value = &x[from + kv_heads * head_dim..][..head_dim];
                for i in 0..head_dim {
                    k_cache[to + i] = half_of(key[i]);
                    v_cache[to + i] = half_of(value[i]);
                }
            }
        }
        host.set(&self.qkv, &qkv)?;
        host.set(&self.shard.k, &k_cache)?;
        host.set(&self.shard.v, &v_cache)
    }
}

/// A table of angles for positions below 768.
pub(super) fn case_table(builder: &mut CaseBuilder, rope_dim: usize) -> Tensor {
    let mut table = Vec::new();
    for (start, step) in [(0..256, 1), (0..3, 256)] {
        for position in start {
            for i in 0..rope_dim / 2 {
                let frequency = 1e4f64.powf(-2.0 * i as f64 / rope_dim as f64);
                let (sin, cos) = (frequency * f64::from(position * step)).sin_cos();
                table.extend([cos as f32, sin as f32]);
            }
        }
    }
    builder.floats(&[259, rope_dim / 2, 2], &table)
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    // Head size, elements that turn, pairing, query heads, KV heads, the shard's heads.
    let shapes = [
        (8, 8, Pairing::Interleaved, 2, 2, 0..2),
        (24, 16, Pairing::Half, 2, 1, 0..1),
        (64, 64, Pairing::Half, 8, 2, 0..2),
        (80, 20, Pairing::Interleaved, 4, 4, 0..2),
        (80, 32, Pairing::Half, 4, 4, 2..4),
        (128, 128, Pairing::Interleaved, 8, 1, 0..1),
        (256, 256, Pairing::Half, 4, 2, 1..2),
    ];
    let positions = [0, 63, 64, 127, 200, 255, 256, 600];
    let mut cases = Vec::new();
    for (head_dim, rope_dim, pairing, heads, kv_heads, shard) in shapes {
        for count in [1, 7] {
            let heads = Heads { heads, kv_heads, head_dim };
            let mut builder = CaseBuilder::new((head_dim + rope_dim + count) as u64);
            let (slots, max_pages) = (3, 10);
            let row = |i: usize| {
                let active = i % 3 != 1 || i + 1 == count;
                [i as u32, (i % slots) as u32, positions[(i + head_dim) % positions.len()], u32::from(active)]
            };
            let words: Vec<u32> = (0..count).flat_map(row).collect();
            let rows = builder.words(&[count, 4], &words);
            let rope = case_table(&mut builder, rope_dim);
            let pages = slots * max_pages;
            let table: Vec<u32> = (0..pages).map(|i| ((i * 7 + 3) % pages) as u32).collect();
            let page_table = builder.words(&[slots, max_pages], &table);
            let qkv = builder.random(&[count, heads.qkv_cols()]);
            // Two products and a sum of products of table entries, each rounded to 2^-24: relative errors near 1e-7.
            builder.updated(&qkv, Compare::Nmse(1e-12));
            let cache = |builder: &mut CaseBuilder| {
                let shape = super::cache::CacheShape { pages, heads: shard.len(), head_dim }.words();
                let words: usize = shape.iter().product();
                let noise: Vec<u32> = (0..words).map(|i| 0x3c00_3c00 + i as u32 % 512).collect();
                let cache = builder.words(&shape, &noise);
                // WGSL leaves the direction of rounding to f16 open: an ulp of 2^-10, about a third of it squared.
                builder.updated(&cache, Compare::HalfNmse(1e-6));
                cache
            };
            let (k, v) = (cache(&mut builder), cache(&mut builder));
            let turn_queries = shard.start == 0;
            let name = format!("{count}x{}/{}x{head_dim} {pairing:?} {rope_dim}, {shard:?}", heads.heads, kv_heads);
            let shard = Shard { k, v, kv_start: shard.start };
            let kernel = RopeCache { qkv, rows, rope, page_table, shard, heads, pairing, turn_queries };
            cases.push(builder.case(name, kernel));
        }
    }
    cases
}
