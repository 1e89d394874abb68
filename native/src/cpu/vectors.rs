//! The CPU column of the suites `embed` and `search`: candle on all cores.

use std::path::Path;
use std::time::Instant;

use anygpu::embed::Embedder;
use anygpu::search::Hit;
use anygpu::{Error, Result};
use anygpu_benches::embed::{EmbedSettings, collect, token_ids, verdict};
use anygpu_benches::report::Row;
use anygpu_benches::search::{self, SearchSettings, vector};
use anygpu_benches::stats;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

use super::{ENGINE, refused};

/// Numbers of texts past this take a CPU minutes.
const MOST_TEXTS: usize = 10;
/// Runs of each case.
const REPEATS: usize = 3;

fn encode(model: &BertModel, ids: &[Vec<u32>]) -> candle_core::Result<Vec<Vec<f32>>> {
    let (count, tokens) = (ids.len(), ids.first().map_or(0, Vec::len));
    let ids = Tensor::from_vec(ids.concat(), (count, tokens), &Device::Cpu)?;
    let rows = model.forward(&ids, &ids.zeros_like()?, None)?;
    let means = rows.mean(1)?;
    let lengths = means.sqr()?.sum_keepdim(1)?.sqrt()?;
    means.broadcast_div(&lengths)?.to_vec2()
}

/// Rows of the suite `embed`, in f32, for as many texts as a CPU has time for. `plain` checks the vectors.
///
/// # Errors
/// Files that cannot be read. A model that candle does not take gives no rows.
pub async fn embed_rows(folder: &Path, settings: &EmbedSettings, plain: Option<&mut Embedder>) -> Result<Vec<Row>> {
    let Some(plain) = plain.filter(|_| folder.is_dir()) else { return Ok(Vec::new()) };
    let config = std::fs::read(folder.join("config.json"))?;
    let config: Config =
        serde_json::from_slice(&config).map_err(|error| Error::format(format!("config.json: {error}")))?;
    let bytes = std::fs::read(folder.join("model.safetensors"))?;
    let model = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu)
        .and_then(|weights| BertModel::load(weights, &config))
        .map_err(refused)?;
    let mut rows = Vec::new();
    for &batch in settings.batches.iter().filter(|&&batch| batch <= MOST_TEXTS) {
        let ids = token_ids(batch, settings.tokens, plain.config().vocab_size);
        let found = encode(&model, &ids).map_err(refused)?;
        let check = verdict(&found, &collect(plain.stream_tokens(&ids), batch).await?);
        let mut samples = Vec::new();
        for _ in 0..REPEATS {
            let start = Instant::now();
            encode(&model, &ids).map_err(refused)?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let mut row = Row {
            name: Some("tokens".to_owned()),
            check: Some(check),
            note: Some("weights in f32".to_owned()),
            ..Row::new(ENGINE, "embed", &settings.model, &settings.dtype)
        }
        .case(batch as u64, settings.tokens as u64, 0, 0)
        .with_samples(&samples);
        row.texts_per_second = stats::median(&samples).map(|ms| batch as f64 / ms * 1e3);
        row.tokens_per_second = row.texts_per_second.map(|rate| rate * settings.tokens as f64);
        rows.push(row);
    }
    Ok(rows)
}

/// Rows of the suite `search`: a matrix product in f32, then a selection; the first query's answer is checked.
///
/// # Errors
/// What candle refuses.
pub fn search_rows(settings: &SearchSettings) -> Result<Vec<Row>> {
    let unit = |values: &mut [f32]| {
        let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.iter_mut().for_each(|v| *v /= length);
    };
    let mut values = Vec::with_capacity(settings.vectors * settings.dims);
    (0..settings.vectors as u64).for_each(|id| vector(id, settings.dims, &mut values));
    values.chunks_exact_mut(settings.dims).for_each(unit);
    let vectors = Tensor::from_vec(values, (settings.vectors, settings.dims), &Device::Cpu).map_err(refused)?;
    let transposed = vectors.t().map_err(refused)?;
    let mut rows = Vec::new();
    for &count in &settings.queries {
        let mut queries = search::queries(count, settings.dims);
        let first = queries[..settings.dims].to_vec();
        queries.chunks_exact_mut(settings.dims).for_each(unit);
        let queries = Tensor::from_vec(queries, (count, settings.dims), &Device::Cpu).map_err(refused)?;
        let search = || -> candle_core::Result<Vec<Vec<(f32, u32)>>> {
            let mut found = Vec::with_capacity(count);
            for scores in queries.matmul(&transposed)?.to_vec2::<f32>()? {
                let mut ranked: Vec<(f32, u32)> = scores.into_iter().zip(0..).collect();
                let k = settings.k.min(ranked.len());
                ranked.select_nth_unstable_by(k.saturating_sub(1), |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                ranked.truncate(k);
                ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                found.push(ranked);
            }
            Ok(found)
        };
        let found = search().map_err(refused)?;
        let mut check = None;
        if let Some(found) = found.first().filter(|_| settings.check) {
            let hits: Vec<Hit> = found.iter().map(|&(score, id)| Hit { id: id.into(), score }).collect();
            check = Some(search::verdict(
                &SearchSettings { dtype: anygpu::DType::F32, ..settings.clone() },
                &first,
                &hits,
            )?);
        }
        let mut samples = Vec::new();
        for _ in 0..REPEATS {
            let start = Instant::now();
            search().map_err(refused)?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let mut row = Row {
            name: Some(settings.case()),
            check,
            note: Some("vectors in f32".to_owned()),
            ..Row::new(ENGINE, "search", settings.model(), settings.dtype.name())
        }
        .case(count as u64, 0, 0, 0)
        .with_samples(&samples);
        row.queries_per_second = stats::median(&samples).map(|ms| count as f64 / ms * 1e3);
        rows.push(row);
    }
    Ok(rows)
}
