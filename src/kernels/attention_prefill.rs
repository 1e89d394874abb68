//! `y = softmax(q · kᵀ · scale, causal) · v`, in tiles of 64 queries and 32 keys with an online softmax (Dao et al. 2022,
//! FlashAttention).

use super::attention::{Attention, Shape};
use super::attention_split::{shapes, tolerance};
use super::cache::PAGE;
use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect_shape, write};
use super::testing::{Case, CaseBuilder};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Spec, Target};
use crate::tensor::Tensor;

/// Queries (rows times grouped heads) of a workgroup.
const QUERIES: usize = 64;

/// Attention of many rows: for prompts. Rows may be of any slots; it is fast where neighbours are of one.
#[derive(Clone, Debug)]
pub struct AttentionPrefill {
    /// Queries, cache and rows.
    pub attention: Attention,
    /// `y[M, H · head_dim]`; the shard's heads are written, rows that are not active become zero.
    pub y: Tensor,
}

params! {
    struct Uniform {
        rows: u32,
        heads: u32,
        kv_heads: u32,
        kv_start: u32,
        kv_count: u32,
        max_pages: u32,
        scale: f32,
    }
}

impl Kernel for AttentionPrefill {
    fn name(&self) -> &'static str {
        "attention_prefill"
    }

    fn check(&self) -> Result<()> {
        let a = &self.attention;
        a.check(self.name())?;
        expect_shape(self.name(), "y", self.y.shape(), &[a.count(), a.heads.heads * a.heads.head_dim])
    }

    fn spec(&self, profile: &Profile) -> Spec {
        Spec::new("attention_prefill", Target::of(profile))
            .constant("HEAD_DIM", self.attention.heads.head_dim as u32)
            .constant("GROUP", self.attention.heads.group() as u32)
            .constant("PAGE", PAGE as u32)
            .trusted()
    }

    fn params(&self) -> Params {
        let a = &self.attention;
        Uniform {
            rows: a.count() as u32,
            heads: a.heads.heads as u32,
            kv_heads: a.heads.kv_heads as u32,
            kv_start: a.shard.kv_start as u32,
            kv_count: a.shard.kv_count() as u32,
            max_pages: a.page_table.cols() as u32,
            scale: a.scale_log2(),
        }
        .into()
    }

    fn grid(&self, _profile: &Profile, _context: usize) -> [u32; 3] {
        let a = &self.attention;
        [(a.count() * a.heads.group()).div_ceil(QUERIES) as u32, a.shard.kv_count() as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = self.attention.bindings();
        bindings.push(write(&self.y));
        bindings
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let head_dim = self.attention.heads.head_dim;
        let mut y = host.floats(&self.y)?;
        let heads = self.attention.heads.heads;
        self.attention.for_each(host, |r, row, head, attend| {
            let out = &mut y[(r * heads + head) * head_dim..][..head_dim];
            out.fill(0.0);
            if row.active {
                let part = attend(0..row.position + 1);
                for (out, value) in out.iter_mut().zip(&part.values) {
                    *out = (value / part.total) as f32;
                }
            }
        })?;
        host.set(&self.y, &y)
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let consecutive = |slot: usize, start: usize, count: usize| (start..start + count).map(move |p| (slot, p, true));
    let mut shapes = shapes();
    for (heads, kv_heads, head_dim, start, count) in
        [(1, 1, 128, 0, 70), (2, 1, 64, 60, 65), (4, 1, 80, 7, 17), (6, 2, 24, 100, 33), (1, 1, 256, 30, 66)]
    {
        let mut rows: Vec<_> = consecutive(0, start, count).collect();
        shapes.push(Shape::new(heads, kv_heads, head_dim, &rows));
        // Rows of a second sequence in the same tiles, then rows that are padding, then the first once more.
        rows.truncate(count / 2);
        rows.extend(consecutive(2, 40, count / 4));
        rows.extend([(1, 0, false), (1, 1, false)]);
        rows.extend(consecutive(0, start + count / 2, 3));
        shapes.push(Shape::new(heads, kv_heads, head_dim, &rows));
    }
    let mut cases = Vec::new();
    for (index, shape) in shapes.into_iter().enumerate() {
        let mut builder = CaseBuilder::new(300 + index as u64);
        let attention = shape.build(&mut builder);
        // A shard leaves other heads' outputs as they are.
        let y = builder.random(&[shape.rows.len(), shape.heads.heads * shape.heads.head_dim]);
        builder.updated(&y, tolerance(&shape));
        cases.push(builder.case_at(shape.name(), AttentionPrefill { attention, y }, shape.context()));
    }
    cases
}
