//! [`Index`]: exact search over vectors on the GPU.
//!
//! Vectors lie in parts that fit a binding, as f32, f16 or 8 bits. One query is a product with every row of which only the
//! best are written; many queries are a matrix product of which the best of every 32 rows chooses groups, whose rows are ranked by
//! products in f32.
//!
//! ```
//! # pollster::block_on(async {
//! use anygpu::DType;
//! use anygpu::gpu::{Adapter, Context};
//! use anygpu::search::{Index, Metric};
//!
//! let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
//! let mut index = Index::new(&context, 2, DType::F32, Metric::Cosine)?;
//! index.add(&[1.0, 0.0, 0.0, 2.0, 3.0, 3.0]).await?;
//! let hits = index.search(&[0.0, 1.0], 2).await?;
//! assert_eq!(hits[0].iter().map(|hit| hit.id).collect::<Vec<_>>(), [1, 2]);
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

mod file;
mod part;
mod plan;

#[cfg(test)]
mod tests;

use std::ops::Range;

pub use file::Extra;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Context;
use crate::kernels::ranking::{MAX_TOP, score_of};
use part::Part;
use plan::Ready;

/// What makes a vector near a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// The cosine of their angle: both are divided by their length.
    #[default]
    Cosine,
    /// Their product.
    Dot,
}

/// A found vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its id.
    pub id: u64,
    /// Cosine or product with the query.
    pub score: f32,
}

/// Queries of one plan: more are cut.
const MAX_QUERIES: usize = 64;
/// Bytes written before the queue is waited for.
const IN_FLIGHT_BYTES: usize = 128 << 20;

/// Vectors on a device, searched exactly.
///
/// # Exactness
/// Scores are products in f32 with the stored vectors, as rounded to the index's format. [`Self::search`] finds what an exact
/// search over those on the CPU finds, ids in the same order, except where two scores differ by less than the rounding of a
/// product in f32: about 1e-6 · |query| · |vector|. Equal scores go by the lowest id.
///
/// Of several queries at once, groups of 32 vectors are chosen by their best one, 16 more groups than vectors asked for (256 at most),
/// and the vectors of these scored in f32. On devices with f16 products choose them that round both factors to it: a vector is missed
/// only where its score lies within 2^-9 · |query| · |vector|, of the longer vector, of the best ones of more than 16 other groups (of
/// 256 - k where k is above 240), or where numbers of vectors are beyond ±65504.
pub struct Index {
    context: Context,
    dims: usize,
    dtype: DType,
    metric: Metric,
    parts: Vec<Part>,
    /// By row, ascending; rows of removed vectors among them.
    ids: Vec<u64>,
    next_id: u64,
    removed: usize,
    /// Plans for the parts as they are.
    plans: Vec<Ready>,
}

impl Index {
    /// An empty index of vectors of `dims` numbers, kept as F32, F16 or Q8_0.
    ///
    /// # Errors
    /// `Unsupported` for another format, `Shape` for vectors of no number or more than a binding holds.
    pub fn new(context: &Context, dims: usize, dtype: DType, metric: Metric) -> Result<Self> {
        if ![DType::F32, DType::F16, DType::Q8_0].contains(&dtype) {
            return Err(Error::unsupported(format!("index of {dtype}: expected f32, f16 or q8_0")));
        }
        let limit = context.profile().limits.max_binding_bytes;
        if dims == 0 || part::most_rows(dims, dtype, limit) == 0 {
            return Err(Error::shape(format!("vectors of {dims}: expected 1 or more, {limit} bytes for 512 of them")));
        }
        Ok(Self {
            context: context.clone(),
            dims,
            dtype,
            metric,
            parts: Vec::new(),
            ids: Vec::new(),
            next_id: 0,
            removed: 0,
            plans: Vec::new(),
        })
    }

    /// Numbers of a vector.
    pub fn dimensions(&self) -> usize {
        self.dims
    }

    /// The format that vectors are kept in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// What makes a vector near a query.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Vectors that are not removed.
    pub fn len(&self) -> usize {
        self.ids.len() - self.removed
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Bytes of GPU memory that vectors take.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(Part::bytes).sum()
    }

    /// Makes room for `rows` more vectors in as few parts as the device allows.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn reserve(&mut self, rows: usize) -> Result<()> {
        let room: usize = self.parts.iter().map(Part::room).sum();
        let mut missing = rows.saturating_sub(room);
        while missing > 0 {
            // Parts grow with the index, so that adding little by little leaves few of them.
            let wanted = missing.max(self.ids.len() / 2).max(part::LEAST_ROWS);
            let part = Part::new(&self.context, self.dims, self.dtype, wanted)?;
            missing = missing.saturating_sub(part.room());
            self.parts.push(part);
        }
        Ok(())
    }

    /// Adds vectors, `[n, dims]`; returns their ids, which ascend and are never used again.
    ///
    /// # Errors
    /// `Shape` where the numbers are no whole vectors or one is not finite; `OutOfMemory`.
    pub async fn add(&mut self, vectors: &[f32]) -> Result<Range<u64>> {
        let first = self.next_id;
        let count = self.count(vectors, "vectors")?;
        let ids: Vec<u64> = (first..first + count as u64).collect();
        self.add_rows(&ids, vectors).await?;
        Ok(first..self.next_id)
    }

    /// Adds checked vectors under ascending ids.
    async fn add_rows(&mut self, ids: &[u64], vectors: &[f32]) -> Result<()> {
        self.reserve(ids.len())?;
        let mut written = 0;
        let mut scaled = Vec::new();
        for (&id, vector) in ids.iter().zip(vectors.chunks_exact(self.dims)) {
            self.scaled(vector, &mut scaled);
            let row = self.ids.len();
            let part = self.writable().ok_or_else(|| Error::shape("index: no room for a reserved vector"))?;
            written += part.stage(&scaled).map_err(|error| error.context(format!("vector {row}")))?;
            self.ids.push(id);
            self.next_id = id + 1;
            if written >= IN_FLIGHT_BYTES {
                self.flush();
                self.context.finish().await?;
                written = 0;
            }
        }
        self.flush();
        self.plans.clear();
        self.context.check()
    }

    /// The part that the next vector goes to. Rows are in the order of parts, so it is the first one behind all that is used.
    fn writable(&mut self) -> Option<&mut Part> {
        let used = self.parts.iter().rposition(|part| part.rows() > 0).unwrap_or(0);
        self.parts[used..].iter_mut().find(|part| part.room() > 0)
    }

    fn flush(&mut self) {
        let context = self.context.clone();
        self.parts.iter_mut().for_each(|part| part.flush(&context));
    }

    /// Whole vectors that the numbers are.
    fn count(&self, vectors: &[f32], what: &str) -> Result<usize> {
        if !vectors.len().is_multiple_of(self.dims) {
            let found = vectors.len();
            return Err(Error::shape(format!("{what}: {found} numbers, expected a multiple of {}", self.dims)));
        }
        if let Some(at) = vectors.iter().position(|value| !value.is_finite()) {
            let (index, value) = (at / self.dims, vectors[at]);
            return Err(Error::shape(format!("{what}: number {index} has {value}, expected finite numbers")));
        }
        Ok(vectors.len() / self.dims)
    }

    /// A vector as the metric wants it.
    fn scaled(&self, vector: &[f32], out: &mut Vec<f32>) {
        out.clear();
        let length = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let scale = match self.metric {
            Metric::Cosine if length > 0.0 => 1.0 / length,
            _ => 1.0,
        };
        out.extend(vector.iter().map(|&v| (f64::from(v) * scale) as f32));
    }

    /// Checked queries as plans take them, `[n, padded]`, and how many they are.
    fn rows(&self, queries: &[f32]) -> Result<(Vec<f32>, usize)> {
        let (count, padded) = (self.count(queries, "queries")?, part::padded(self.dims));
        let mut rows = vec![0.0; count * padded];
        let mut scaled = Vec::new();
        for (query, row) in queries.chunks_exact(self.dims).zip(rows.chunks_exact_mut(padded)) {
            self.scaled(query, &mut scaled);
            row[..self.dims].copy_from_slice(&scaled);
        }
        Ok((rows, count))
    }

    /// Removes vectors by id; returns how many there were.
    pub fn remove(&mut self, ids: &[u64]) -> usize {
        let mut removed = 0;
        for id in ids {
            let Ok(mut row) = self.ids.binary_search(id) else { continue };
            for part in &mut self.parts {
                if row < part.rows() {
                    removed += usize::from(part.remove(row));
                    break;
                }
                row -= part.rows();
            }
        }
        self.removed += removed;
        self.flush();
        removed
    }

    /// The ids of all vectors, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.rows_left().map(|(id, ..)| id)
    }

    /// Whether there is a vector of this id.
    pub fn contains(&self, id: u64) -> bool {
        let Ok(mut row) = self.ids.binary_search(&id) else { return false };
        for part in &self.parts {
            if row < part.rows() {
                return !part.is_removed(row);
            }
            row -= part.rows();
        }
        false
    }

    /// The `k` best vectors for each of some queries, `[n, dims]`, the best first; fewer where the index has fewer.
    ///
    /// # Errors
    /// `Shape` where the numbers are no whole vectors, one is not finite, or `k` is not 1 to 256; what the device reports.
    pub async fn search(&mut self, queries: &[f32], k: usize) -> Result<Vec<Vec<Hit>>> {
        check_k(k)?;
        let count = self.count(queries, "queries")?;
        if self.is_empty() {
            return Ok(vec![Vec::new(); count]);
        }
        let mut hits = Vec::with_capacity(count);
        // All batches are submitted before the first is waited for.
        let mut pending = Vec::new();
        for batch in queries.chunks(self.most_queries(k) * self.dims) {
            let (rows, batch_count) = self.rows(batch)?;
            pending.push((batch_count, self.submit(&rows, batch_count, k)?));
        }
        for (batch_count, pending) in pending {
            let pairs: Vec<u32> = bytemuck::pod_collect_to_vec(&pending.bytes().await?);
            for of_query in pairs.chunks_exact(2 * k).take(batch_count) {
                let found = of_query.chunks_exact(2).filter(|pair| pair[0] != 0);
                let hit = |pair: &[u32]| Some(Hit { id: *self.ids.get(pair[1] as usize)?, score: score_of(pair[0]) });
                hits.push(found.filter_map(hit).collect());
            }
        }
        Ok(hits)
    }
}

fn check_k(k: usize) -> Result<()> {
    match k {
        1..=MAX_TOP => Ok(()),
        _ => Err(Error::shape(format!("the best {k}: expected 1 to {MAX_TOP}"))),
    }
}
