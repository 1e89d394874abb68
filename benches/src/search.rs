//! The suite `search`: the best of many vectors on the GPU, for one query and for many at once. Every timed case first has
//! its answer checked against an exact search on the CPU.

use anygpu::gpu::Context;
use anygpu::search::{Hit, Index, Metric};
use anygpu::{DType, Result};

use crate::report::{ANYGPU, Report, Row};
use crate::suite::{Clock, heat, timed, warm};

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchSettings {
    /// Vectors of the index.
    pub vectors: usize,
    /// Numbers of a vector.
    pub dims: usize,
    /// What vectors are kept as.
    pub dtype: DType,
    /// Numbers of queries at once.
    pub queries: Vec<usize>,
    /// How many are found for each.
    pub k: usize,
    /// Runs of each case, after one that warms up.
    pub repeats: usize,
    /// Whether answers are checked, by an exact search on the CPU.
    pub check: bool,
}

impl SearchSettings {
    /// The name for rows' `model`.
    pub fn model(&self) -> String {
        format!("{}x{}", self.vectors, self.dims)
    }

    /// The name of a case.
    pub fn case(&self) -> String {
        format!("top-{}", self.k)
    }
}

/// Vector `index`: the same on every machine and in every baseline, uniform in [-1, 1).
pub fn vector(index: u64, dims: usize, out: &mut Vec<f32>) {
    let mut state = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..dims {
        // xorshift64*, Vigna 2016.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        out.push(bits as f32 / 8_388_608.0 - 1.0);
    }
}

/// Queries, none of which is in the index.
pub fn queries(count: usize, dims: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(count * dims);
    (0..count as u64).for_each(|i| vector(1 << 40 | i, dims, &mut out));
    out
}

/// `ok`, or what is wrong with hits: ids and scores against an exact search over the stored numbers in double precision.
///
/// # Errors
/// A format that vectors are not kept in.
pub fn verdict(settings: &SearchSettings, query: &[f32], hits: &[Hit]) -> Result<String> {
    let unit = |vector: &[f32]| -> Vec<f32> {
        let length = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        vector.iter().map(|&v| (f64::from(v) / length) as f32).collect()
    };
    let query = unit(query);
    let mut scores: Vec<(f64, u64)> = Vec::with_capacity(settings.vectors);
    let padded = settings.dims.next_multiple_of(32);
    let (mut values, mut blocks) = (Vec::new(), Vec::new());
    for id in 0..settings.vectors as u64 {
        values.clear();
        vector(id, settings.dims, &mut values);
        let mut stored = unit(&values);
        stored.resize(padded, 0.0);
        blocks.clear();
        anygpu::quant::quantize(settings.dtype, &stored, &mut blocks)?;
        anygpu::quant::dequantize(settings.dtype, &blocks, &mut stored)?;
        scores.push((stored.iter().zip(&query).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum(), id));
    }
    let best = |a: &(f64, u64), b: &(f64, u64)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let k = settings.k.min(scores.len());
    scores.select_nth_unstable_by(k.saturating_sub(1), best);
    scores.truncate(k);
    scores.sort_by(best);
    if hits.len() != k {
        return Ok(format!("{} hits, expected {k}", hits.len()));
    }
    for (i, (hit, &(score, id))) in hits.iter().zip(&scores).enumerate() {
        // Products of unit vectors in f32.
        let near = (f64::from(hit.score) - score).abs() < 1e-5;
        if !near || (hit.id != id && !scores.iter().any(|s| s.1 == hit.id && (s.0 - score).abs() < 1e-5)) {
            return Ok(format!("hit {i} is {} ({}), expected {id} ({score})", hit.id, hit.score));
        }
    }
    Ok("ok".to_owned())
}

/// Runs the suite.
///
/// # Errors
/// What stops a run: a lost device, no memory.
pub async fn run(
    context: &Context,
    settings: &SearchSettings,
    now: Clock<'_>,
    report: &mut Report,
    on_row: &mut dyn FnMut(&Row),
) -> Result<()> {
    let mut index = Index::new(context, settings.dims, settings.dtype, Metric::Cosine)?;
    index.reserve(settings.vectors)?;
    let mut values = Vec::new();
    for start in (0..settings.vectors).step_by(1 << 15) {
        values.clear();
        for id in start..settings.vectors.min(start + (1 << 15)) {
            vector(id as u64, settings.dims, &mut values);
        }
        index.add(&values).await?;
    }
    let bytes = index.bytes();
    for &count in &settings.queries {
        let queries = queries(count, settings.dims);
        let hits = index.search(&queries, settings.k).await?;
        let mut check = None;
        if settings.check {
            // The first and the last: an exact search takes a CPU seconds.
            let asked = queries.chunks_exact(settings.dims).zip(&hits);
            let ends = asked.clone().take(1).chain(asked.skip(1).last());
            for (query, hits) in ends {
                let found = verdict(settings, query, hits)?;
                check = check.filter(|check| check != "ok").or(Some(found));
            }
        }
        let (_, samples) = timed(context, &report.environment, settings.repeats, now, async || {
            let start = now();
            let found = index.search(&queries, settings.k).await?;
            let ms = now() - start;
            match found.len() == count {
                true => Ok(ms),
                false => Err(anygpu::Error::shape(format!("{} answers to {count} queries", found.len()))),
            }
        })
        .await?;
        let mut gpu_ms = None;
        if context.profile().features.timestamps {
            let plan = index.plan_for(&queries, settings.k)?;
            heat(context, &report.environment, now).await?;
            warm(context, &plan, now).await?;
            for _ in 0..settings.repeats.max(1) {
                let ms = plan.time(0).await?;
                gpu_ms = Some(gpu_ms.map_or(ms, |best: f64| best.min(ms)));
            }
        }
        let rate = report.environment.copy_bytes_per_second;
        let mut row = Row {
            name: Some(settings.case()),
            bytes: Some(bytes),
            operations: Some(2 * (settings.vectors * settings.dims * count) as u64),
            // One query reads every vector once: by the GPU's own clock, without the way there and back.
            bandwidth_share: gpu_ms.zip(rate).map(|(ms, rate)| bytes as f64 / ms * 1e3 / rate),
            peak_memory_bytes: Some(context.memory().peak_bytes()),
            check,
            note: gpu_ms.map(|ms| format!("{ms:.3} ms on the GPU")),
            ..Row::new(ANYGPU, "search", settings.model(), settings.dtype.name())
        }
        .case(count as u64, 0, 0, 0)
        .with_samples(&samples);
        row.queries_per_second = crate::stats::median(&samples).map(|ms| count as f64 / ms * 1e3);
        on_row(&row);
        report.rows.push(row);
    }
    Ok(())
}
