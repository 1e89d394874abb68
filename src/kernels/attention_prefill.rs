//! `y = softmax(q · kᵀ · scale, causal) · v`, in tiles of 32 to 128 queries and 32 or more keys with an online softmax (Dao
//! et al. 2022, FlashAttention).

use super::attention::{Attention, KEYS, Shape, Tile, is_whole};
use super::attention_decode::{shapes, tolerance};
use super::cache::PAGE;
use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect};
use super::matmul::{cooperative, matrices};
use super::q8::{Activations, BLOCK};
use super::rms_norm::{f16_output, q8_output};
use super::testing::{Case, CaseBuilder, Compare};
use crate::error::Result;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};

/// Attention of many rows: for prompts. Rows may be of any slots; it is fast where neighbours are of one.
#[derive(Clone, Debug)]
pub struct AttentionPrefill {
    /// Queries, cache and rows.
    pub attention: Attention,
    /// `y[M, H · head_dim]`; the shard's heads are written, rows that are not active become zero.
    pub y: Activations,
    /// Whether queries and weights may be rounded to f16, where the device multiplies matrices of it. Keys and values are
    /// f16 in any case.
    pub f16: bool,
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

/// Subgroups that share keys, the most first: of twice as many, keys and values are read half as often, which is most of what this
/// kernel waits for (7B's 32 layers on an H200: 2048 rows 12.9 to 9.8 ms, 512 rows 1.61 to 1.24 ms).
const TEAMS: [usize; 2] = [8, 4];

/// Workgroups of the larger team that are enough for a large GPU.
const ENOUGH: usize = 96;

/// How the work is done on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// By f32 tiles.
    Lanes,
    /// By f16 matrices of `side` × `side` with f32 sums, held by subgroups of a fixed size, `team` of which share keys.
    Cooperative { side: usize, subgroup: usize, team: usize },
}

impl Unit {
    /// Queries (rows times grouped heads) of a workgroup.
    fn queries(self) -> usize {
        match self {
            Unit::Lanes => 64,
            Unit::Cooperative { side, team, .. } => team * side,
        }
    }

    /// Bytes of workgroup memory.
    fn workgroup_bytes(self, head_dim: usize) -> usize {
        match self {
            Unit::Lanes => 16384,
            Unit::Cooperative { side, subgroup, .. } => Tile::new(self.queries(), head_dim, side, subgroup).bytes,
        }
    }
}

impl AttentionPrefill {
    /// Workgroups along queries and along key heads.
    fn workgroups(&self, unit: Unit) -> [usize; 2] {
        let a = &self.attention;
        [(a.count() * a.heads.group()).div_ceil(unit.queries()), a.shard.kv_count()]
    }

    fn unit(&self, profile: &Profile) -> Unit {
        let head_dim = self.attention.heads.head_dim;
        // What quantises blocks of results is written for lanes.
        let usable = |_: &(u32, u32)| self.f16 && !self.y.is_q8();
        let Some((side, subgroup)) = cooperative(profile).filter(usable) else { return Unit::Lanes };
        let whole = is_whole(head_dim, side as usize, subgroup as usize);
        let limits = &profile.limits;
        let mut units = TEAMS.map(|team| Unit::Cooperative { side: side as usize, subgroup: subgroup as usize, team }).into_iter();
        let found = units.find(|unit| {
            let Unit::Cooperative { team, .. } = *unit else { return false };
            unit.workgroup_bytes(head_dim) <= limits.max_workgroup_bytes as usize
                && team as u32 * subgroup <= limits.max_workgroup_invocations
                && (team == 4 || self.workgroups(*unit).iter().product::<usize>() >= ENOUGH)
        });
        found.filter(|_| whole).unwrap_or(Unit::Lanes)
    }
}

impl Kernel for AttentionPrefill {
    fn name(&self) -> &'static str {
        "attention_prefill"
    }

    fn check(&self) -> Result<()> {
        let a = &self.attention;
        a.check(self.name())?;
        let head_dim = a.heads.head_dim;
        expect(self.name(), !self.y.is_q8() || head_dim.is_multiple_of(BLOCK), || {
            format!("y is quantised with heads of {head_dim}, expected a multiple of {BLOCK}")
        })?;
        self.y.check(self.name(), "y", a.count(), a.heads.heads * a.heads.head_dim)
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let spec = Spec::new("attention_prefill", Target::of(profile))
            .constant("HEAD_DIM", self.attention.heads.head_dim as u32)
            .constant("GROUP", self.attention.heads.group() as u32)
            .constant("PAGE", PAGE as u32)
            .trusted();
        let spec = self.y.output(spec);
        let spec = if self.y.is_q8() { spec.flag(Flag::DOT4) } else { spec };
        let unit = self.unit(profile);
        let Unit::Cooperative { side, subgroup, team } = unit else { return spec };
        let [a, b, c] = matrices(side as u32);
        spec.flag(Flag::F16)
            .flag(Flag::SUBGROUPS)
            .flag(Flag::COOP_MATRIX)
            .alias("MatA", a)
            .alias("MatB", b)
            .alias("MatC", c)
            .constant("TEAM", team as u32)
            .constant("KEYS", KEYS as u32)
            .constant("SHOWN", Tile::new(unit.queries(), self.attention.heads.head_dim, side, subgroup).shown as u32)
            .constant("SIDE", side as u32)
            .constant("SUBGROUP", subgroup as u32)
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

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        let [tiles, heads] = self.workgroups(self.unit(profile));
        [tiles as u32, heads as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = self.attention.bindings();
        bindings.push(self.y.binding(true));
        bindings
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let head_dim = self.attention.heads.head_dim;
        let mut y = self.y.values(host)?;
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
        self.y.set(host, &y)
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
    let halves = Shape::new(2, 1, 64, &consecutive(0, 60, 65).collect::<Vec<_>>());
    // Several batches of sums, and maxima that rise by more than the headroom from page to page.
    let rising: Vec<_> = consecutive(0, 230, 34).collect();
    shapes.push(Shape { magnitude: 8.0, ..Shape::new(1, 1, 128, &rising) });
    // Scores by halves, of which sums take several batches where there would be one.
    shapes.push(Shape { magnitude: 8.0, ..Shape::new(1, 1, 32, &rising) });
    // Enough workgroups for teams of eight: one sequence whose scores rise, and two with shared keys.
    let many: Vec<_> = consecutive(0, 70, 130).collect();
    shapes.push(Shape { magnitude: 8.0, ..Shape::new(48, 48, 128, &many) });
    let many: Vec<_> = consecutive(0, 0, 40).chain([(1, 5, false)]).chain(consecutive(1, 20, 90)).collect();
    shapes.push(Shape::new(64, 32, 64, &many));
    let many: Vec<_> = consecutive(0, 3, 130).collect();
    shapes.push(Shape::new(48, 48, 80, &many));
    let mut cases = Vec::new();
    for f16 in [false, true] {
        for (index, shape) in shapes.iter().enumerate() {
            // Drivers take seconds for the matrices' shaders: tiles, shards and large scores are enough of them.
            if f16 && shape.rows.len() < 17 && shape.shard.start == 0 && shape.magnitude == 1.0 {
                continue;
            }
            let mut builder = CaseBuilder::new(300 + index as u64);
            let attention = shape.build(&mut builder);
            // A shard leaves other heads' outputs as they are.
            let y = builder.random(&[shape.rows.len(), shape.heads.heads * shape.heads.head_dim]);
            // Rounding a query to f16 moves a score of 10 by about 10 · 2^-12, and with it a weight by as much of itself.
            builder.updated(&y, Compare::Nmse(if f16 { 3e-6 } else { tolerance(shape) }));
            let name = format!("{}{}", shape.name(), if f16 { ", f16 allowed" } else { "" });
            let y = Activations::F32(y);
            cases.push(builder.case_at(name, AttentionPrefill { attention, y, f16 }, shape.context()));
        }
    }
    let mut builder = CaseBuilder::new(299);
    let attention = halves.build(&mut builder);
    let y = f16_output(&mut builder, halves.rows.len(), halves.heads.heads * halves.heads.head_dim);
    let kernel = AttentionPrefill { attention, y, f16: false };
    cases.push(builder.case_at(format!("{} to f16", halves.name()), kernel, halves.context()));
    let whole = |shape: &&Shape| {
        let blocks = shape.heads.head_dim.is_multiple_of(BLOCK) && shape.shard.len() == shape.heads.kv_heads;
        blocks && shape.magnitude == 1.0
    };
    for (index, shape) in shapes.iter().filter(whole).enumerate() {
        let mut builder = CaseBuilder::new(400 + index as u64);
        let attention = shape.build(&mut builder);
        let (rows, cols) = (shape.rows.len(), shape.heads.heads * shape.heads.head_dim);
        let y = q8_output(&mut builder, rows, cols, tolerance(shape));
        let kernel = AttentionPrefill { attention, y, f16: false };
        cases.push(builder.case_at(format!("{} to q8", shape.name()), kernel, shape.context()));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Element;

    #[test]
    fn matrices_are_used_where_they_fit() {
        let of_side = |side: u32| {
            let mut profile = Profile::by_name("h100").unwrap();
            profile.cooperative_matrices.retain(|shape| shape.acc == Element::F32);
            for shape in &mut profile.cooperative_matrices {
                (shape.m, shape.n, shape.k) = (side, side, side);
            }
            profile
        };
        let [eight, sixteen] = [8, 16].map(|side| Unit::Cooperative { side, subgroup: 32, team: 4 });
        let baseline = Profile::by_name("webgpu-baseline").unwrap();
        for (profile, head_dim, f16, expected) in [
            (&of_side(8), 128, true, eight),
            (&of_side(8), 128, false, Unit::Lanes),
            (&of_side(8), 80, true, eight),
            (&of_side(8), 256, true, Unit::Lanes),
            (&of_side(16), 128, true, sixteen),
            (&of_side(16), 24, true, Unit::Lanes),
            (&of_side(16), 256, true, Unit::Lanes),
            (&baseline, 128, true, Unit::Lanes),
        ] {
            let shape = Shape::new(2, 1, head_dim, &[(0, 3, true)]);
            let attention = shape.build(&mut CaseBuilder::new(1));
            let kernel = AttentionPrefill { y: Activations::F32(attention.qkv.clone()), attention, f16 };
            assert_eq!(kernel.unit(profile), expected, "{:?}, heads of {head_dim}, f16 {f16}", profile.cooperative_matrices);
        }
        // Three tiles of 32 heads each are enough for the larger team, two are not, and 32 KiB hold only the smaller one.
        let mut little = of_side(16);
        little.limits.max_workgroup_bytes = 32_768;
        for (profile, rows, expected) in [(of_side(16), 257, 8), (of_side(16), 256, 4), (little, 257, 4)] {
            let rows: Vec<_> = (0..rows).map(|position| (0, position, true)).collect();
            let attention = Shape::new(32, 32, 128, &rows).build(&mut CaseBuilder::new(1));
            let kernel = AttentionPrefill { y: Activations::F32(attention.qkv.clone()), attention, f16: true };
            let Unit::Cooperative { team, .. } = kernel.unit(&profile) else { panic!("lanes with {} rows", rows.len()) };
            assert_eq!(team, expected, "{} rows", rows.len());
        }
    }
}
