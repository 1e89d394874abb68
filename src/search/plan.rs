//! The plans of a search: for one query, and for as many as a power of two.

use super::{Index, part};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::readback::Pending;
use crate::kernels::matmul::Matmul;
use crate::kernels::q8::Activations;
use crate::kernels::ranking::MAX_TOP;
use crate::kernels::rescore::Rescore;
use crate::kernels::scan::{self, Scan};
use crate::kernels::top_k::{self, Candidates, TopK};
use crate::models::weights::upload_floats;
use crate::plan::{Builder, Plan};
use crate::tensor::{Storage, Tensor};

/// Rows whose scores one dispatch writes: those of 64 queries stay in a large GPU's cache.
const ROWS_AT_ONCE: usize = 1 << 17;
/// Candidates beyond those asked for, where products in f16 choose them.
const MARGIN: usize = 16;
/// Plans kept for use again.
const KEPT_PLANS: usize = 4;

pub(super) struct Ready {
    queries: usize,
    k: usize,
    plan: Plan,
    /// `[queries, padded]`.
    input: Tensor,
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
        if let Storage::Buffer(buffer) = ready.input.storage() {
            self.context.write(buffer, 0, bytemuck::cast_slice(queries));
        }
        let pending = ready.plan.replay_and_read(0, &ready.output)?;
        if self.plans.len() >= KEPT_PLANS {
            self.plans.remove(0);
        }
        self.plans.push(ready);
        Ok(pending)
    }

    fn ready(&self, queries: usize, k: usize) -> Result<Ready> {
        let mut builder = Builder::new(&self.context);
        let padded = part::padded(self.dims);
        let input = upload_floats(&self.context, "queries", &vec![0.0; queries * padded], [queries, padded])?;
        let output = match queries {
            1 => self.write_scan(&mut builder, &input, k)?,
            _ => self.write_matmul(&mut builder, &input, k)?,
        };
        builder.keep(&output);
        Ok(Ready { queries, k, plan: builder.finish()?, input, output })
    }

    /// The plan of a search for `queries` at once: for timing and tracing.
    ///
    /// # Errors
    /// `Shape` or `OutOfMemory` where it is beyond the device's limits.
    pub fn plan_for(&self, queries: usize, k: usize) -> Result<Plan> {
        Ok(self.ready(if queries <= 1 { 1 } else { queries.next_power_of_two() }, k)?.plan)
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
        merge(builder, y, k)
    }

    fn write_matmul(&self, builder: &mut Builder, x: &Tensor, k: usize) -> Result<Tensor> {
        let queries = x.rows();
        let chosen = (k + MARGIN).min(MAX_TOP).max(k);
        let limit = self.context.profile().limits.max_binding_bytes as usize;
        let at_once = ROWS_AT_ONCE.min(limit / (4 * queries) / 512 * 512).max(512);
        let chunks = || {
            self.used().flat_map(|(first, part)| {
                let rows = part.rows();
                (0..rows).step_by(at_once).map(move |skip| (first, part, skip, at_once.min(rows - skip)))
            })
        };
        let groups = chunks().map(|(.., count)| top_k::groups(count, chosen)).sum();
        let y = builder.activation(DType::U32, [queries, groups, chosen, 2]);
        let mut first_group = 0;
        for (first, part, skip, count) in chunks() {
            let w = part.tensor().slice(skip, count);
            let w = w.ok_or_else(|| Error::shape(format!("rows {skip} and {count} more of an index's part")))?;
            let scores = builder.activation(DType::F32, [queries, count]);
            let product =
                Matmul { w, x: Activations::F32(x.clone()), y: scores.clone(), y_offset: 0, accumulate: false };
            builder.step("scores", product)?;
            let first_id = first + skip as u32;
            let candidates = Candidates::Scores { scores, removed: part.removed_tensor(), skip, first_id };
            builder.step("choose", TopK { candidates, y: y.clone(), first_group })?;
            first_group += top_k::groups(count, chosen);
        }
        let merged = merge(builder, y, chosen)?;
        let pairs = reshaped(&merged, [queries, chosen, 2])?;
        for (first_id, part) in self.used() {
            builder.step("rescore", Rescore { w: part.tensor(), x: x.clone(), pairs: pairs.clone(), first_id })?;
        }
        let y = builder.activation(DType::U32, [queries, 1, k, 2]);
        builder.step("best", TopK { candidates: Candidates::Pairs(pairs), y: y.clone(), first_group: 0 })?;
        Ok(y)
    }
}

/// Chooses among what was chosen until one group is left, `[queries, 1, k, 2]`.
fn merge(builder: &mut Builder, mut y: Tensor, k: usize) -> Result<Tensor> {
    loop {
        let [queries, groups] = [y.shape()[0], y.shape()[1]];
        if groups == 1 {
            return Ok(y);
        }
        let count = groups * k;
        let next = builder.activation(DType::U32, [queries, top_k::groups(count, k), k, 2]);
        let candidates = Candidates::Pairs(reshaped(&y, [queries, count, 2])?);
        builder.step("merge", TopK { candidates, y: next.clone(), first_group: 0 })?;
        y = next;
    }
}

fn reshaped(tensor: &Tensor, shape: [usize; 3]) -> Result<Tensor> {
    tensor.reshape(shape).ok_or_else(|| Error::shape(format!("{:?} as {shape:?}", tensor.shape())))
}
