//! The plans of a search: for one query, and for as many as a power of two.

use half::slice::HalfFloatSliceExt as _;

use super::{Index, MAX_QUERIES, check_k, part};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::readback::Pending;
use crate::kernels::group_best::GroupBest;
use crate::kernels::matmul::{Matmul, MatmulBest};
use crate::kernels::q8::Activations;
use crate::kernels::ranking::{GROUP, MAX_TOP};
use crate::kernels::rescore::Rescore;
use crate::kernels::scan::{self, Scan};
use crate::kernels::top_k::{self, Candidates, TopK};
use crate::models::weights::{upload_floats, upload_words};
use crate::plan::{Builder, Plan};
use crate::tensor::{Storage, Tensor};

/// Rows whose scores one dispatch writes, where they are written: those of 64 queries stay in a large GPU's cache.
const ROWS_AT_ONCE: usize = 1 << 17;
/// Groups chosen beyond as many as rows are asked for, where products in f16 choose them.
const MARGIN: usize = 16;
/// Plans kept for use again.
const KEPT_PLANS: usize = 4;

pub(super) struct Ready {
    queries: usize,
    k: usize,
    plan: Plan,
    /// `[queries, padded]`.
    input: Tensor,
    /// The same for products that choose groups, F32 or F16, each query by a power of two: see [`scaled`].
    scaled: Option<Tensor>,
    /// `[queries, 1, k, 2]`.
    output: Tensor,
}

impl Index {
    /// Searches for `count` queries, `[count, padded]`; the best pairs are read back later.
    pub(super) fn submit(&mut self, queries: &[f32], count: usize, k: usize) -> Result<Pending> {
        let size = if count == 1 { 1 } else { count.next_power_of_two() };
        let found = self.plans.iter().position(|ready| (ready.queries, ready.k) == (size, k));
        let ready = match found {
            Some(index) => self.plans.remove(index),
            None => self.ready(size, k)?,
        };
        self.fill(&ready, queries);
        let pending = ready.plan.replay_and_read(0, &ready.output)?;
        if self.plans.len() >= KEPT_PLANS {
            self.plans.remove(0);
        }
        self.plans.push(ready);
        Ok(pending)
    }

    /// Writes queries where a plan takes them from.
    fn fill(&self, ready: &Ready, queries: &[f32]) {
        if let Storage::Buffer(buffer) = ready.input.storage() {
            self.context.write(buffer, 0, bytemuck::cast_slice(queries));
        }
        let Some(tensor) = &ready.scaled else { return };
        let Storage::Buffer(buffer) = tensor.storage() else { return };
        let scaled = scaled(queries, part::padded(self.dims));
        if tensor.dtype() == DType::F16 {
            let mut halves = vec![half::f16::ZERO; scaled.len()];
            halves.convert_from_f32_slice(&scaled);
            self.context.write(buffer, 0, bytemuck::cast_slice(&halves));
        } else {
            self.context.write(buffer, 0, bytemuck::cast_slice(&scaled));
        }
    }

    /// Queries that the largest plan takes: a power of two, whose keys of all groups and whose candidates fit bindings.
    pub(super) fn most_queries(&self, k: usize) -> usize {
        let groups: usize = self.used().map(|(_, part)| part.rows().div_ceil(GROUP)).sum();
        let widest = (4 * groups).max(8 * GROUP * chosen(k));
        let fit = self.context.profile().limits.max_binding_bytes as usize / widest;
        MAX_QUERIES.min(fit.checked_ilog2().map_or(1, |log| 1 << log))
    }

    fn ready(&self, queries: usize, k: usize) -> Result<Ready> {
        let mut builder = Builder::new(&self.context);
        let padded = part::padded(self.dims);
        let input = upload_floats(&self.context, "queries", &vec![0.0; queries * padded], [queries, padded])?;
        let (output, scaled) = match queries {
            1 => (self.write_scan(&mut builder, &input, k)?, None),
            _ => {
                let (output, scaled) = self.write_matmul(&mut builder, &input, k)?;
                (output, Some(scaled))
            }
        };
        builder.keep(&output);
        Ok(Ready { queries, k, plan: builder.finish()?, input, scaled, output })
    }

    /// The plan that these queries, `[n, dims]`, are searched for with, and its input: for timing and tracing.
    ///
    /// # Errors
    /// As of [`Self::search`]; `Shape` where they are none or more than one plan takes, or the index is empty.
    pub fn plan_for(&self, queries: &[f32], k: usize) -> Result<Plan> {
        check_k(k)?;
        let (rows, count) = self.rows(queries)?;
        let most = self.most_queries(k);
        if self.is_empty() || !(1..=most).contains(&count) {
            let vectors = self.len();
            return Err(Error::shape(format!(
                "{count} queries of {vectors} vectors, expected 1 to {most} of 1 or more"
            )));
        }
        let ready = self.ready(count.next_power_of_two(), k)?;
        self.fill(&ready, &rows);
        Ok(ready.plan)
    }

    /// Parts with rows, and the row that each begins with.
    fn used(&self) -> impl Iterator<Item = (u32, &part::Part)> {
        let mut first = 0;
        self.parts.iter().filter(|part| part.rows() > 0).map(move |part| {
            let start = first;
            first += part.rows() as u32;
            (start, part)
        })
    }

    fn write_scan(&self, builder: &mut Builder, x: &Tensor, k: usize) -> Result<Tensor> {
        let groups: usize = self.used().map(|(_, part)| scan::groups(part.rows(), k)).sum();
        let y = builder.activation(DType::U32, [1, groups, k, 2]);
        let mut first_group = 0;
        for (first_id, part) in self.used() {
            let (w, removed) = (part.tensor(), part.removed_tensor());
            builder.step("scan", Scan { w, x: x.clone(), removed, y: y.clone(), first_group, first_id })?;
            first_group += scan::groups(part.rows(), k);
        }
        if groups == 1 {
            return Ok(y);
        }
        merge(builder, Candidates::Pairs(reshaped(&y, [1, groups * k, 2])?), k)
    }

    /// Products of all rows choose groups of them, and their rows are candidates anew. Returns what scaled queries go to, too.
    fn write_matmul(&self, builder: &mut Builder, x: &Tensor, k: usize) -> Result<(Tensor, Tensor)> {
        let queries = x.rows();
        let chosen = chosen(k);
        let groups = self.used().map(|(_, part)| part.rows().div_ceil(GROUP)).sum();
        let keys = builder.activation(DType::U32, [queries, groups]);
        let fused = MatmulBest::runs_with(builder.profile(), queries);
        let dtype = if fused { DType::F16 } else { DType::F32 };
        let words = if fused { x.len() / 2 } else { x.len() };
        let words = upload_words(&self.context, "scaled queries", &vec![0; words], [words])?;
        let scaled = Tensor::new(words.storage().clone(), 0, dtype, x.shape());
        for (first, part) in self.used() {
            // All parts but the last one are full, of whole groups.
            let first_group = first as usize / GROUP;
            if fused {
                let (w, x, removed, y) = (part.tensor(), scaled.clone(), part.removed_tensor(), keys.clone());
                builder.step("groups", MatmulBest { w, x, removed, y, first_group })?;
            } else {
                self.write_scores(builder, &scaled, part, &keys, first_group)?;
            }
        }
        let best = merge(builder, Candidates::Keys(keys), chosen)?;
        let chosen = reshaped(&best, [queries, chosen, 2])?;
        let pairs = builder.activation(DType::U32, [queries, GROUP * chosen.shape()[1], 2]);
        for (first, part) in self.used() {
            let (x, chosen, y) = (x.clone(), chosen.clone(), pairs.clone());
            let (w, removed, first_group) = (part.tensor(), part.removed_tensor(), first / GROUP as u32);
            builder.step("rescore", Rescore { w, x, removed, chosen, y, first_group })?;
        }
        Ok((merge(builder, Candidates::Pairs(pairs), k)?, scaled))
    }

    /// The keys of a part's groups by way of all its scores.
    fn write_scores(
        &self,
        builder: &mut Builder,
        x: &Tensor,
        part: &part::Part,
        keys: &Tensor,
        first_group: usize,
    ) -> Result<()> {
        let (queries, rows) = (x.rows(), part.rows());
        let limit = self.context.profile().limits.max_binding_bytes as usize;
        let at_once = ROWS_AT_ONCE.min(limit / (4 * queries) / 512 * 512).max(512);
        for skip in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - skip);
            let w = part.tensor().slice(skip, count);
            let w = w.ok_or_else(|| Error::shape(format!("rows {skip} and {count} more of an index's part")))?;
            let scores = builder.activation(DType::F32, [queries, count]);
            let (x, y) = (Activations::F32(x.clone()), scores.clone());
            builder.step("scores", Matmul { w, x, y, y_offset: 0, accumulate: false })?;
            let (removed, y, first_group) = (part.removed_tensor(), keys.clone(), first_group + skip / GROUP);
            builder.step("groups", GroupBest { scores, removed, skip, y, first_group })?;
        }
        Ok(())
    }
}

/// Groups that are chosen for the best `k` rows, which lie in the k best groups.
fn chosen(k: usize) -> usize {
    (k + MARGIN).min(MAX_TOP)
}

/// Each query by a power of two so that its largest number lies between 1 and 2: what is the best by them stays it, and halves hold
/// them.
fn scaled(queries: &[f32], padded: usize) -> Vec<f32> {
    let mut scaled = Vec::with_capacity(queries.len());
    for query in queries.chunks_exact(padded) {
        let largest = query.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = if largest >= f32::MIN_POSITIVE { (-largest.log2().floor()).exp2() } else { 1.0 };
        scaled.extend(query.iter().map(|value| value * scale));
    }
    scaled
}

/// Chooses the best `k` of each query's candidates, in as many steps as it takes, `[queries, 1, k, 2]`.
fn merge(builder: &mut Builder, mut candidates: Candidates, k: usize) -> Result<Tensor> {
    loop {
        let (Candidates::Pairs(tensor) | Candidates::Keys(tensor)) = &candidates;
        let [queries, count] = [tensor.shape()[0], tensor.shape()[1]];
        let groups = top_k::groups(count, k);
        let y = builder.activation(DType::U32, [queries, groups, k, 2]);
        builder.step("choose", TopK { candidates, y: y.clone(), first_group: 0 })?;
        if groups == 1 {
            return Ok(y);
        }
        candidates = Candidates::Pairs(reshaped(&y, [queries, groups * k, 2])?);
    }
}

fn reshaped(tensor: &Tensor, shape: [usize; 3]) -> Result<Tensor> {
    tensor.reshape(shape).ok_or_else(|| Error::shape(format!("{:?} as {shape:?}", tensor.shape())))
}
