//! Search on the device against search on the CPU in double precision, over the vectors as they are stored.

use std::sync::Arc;

use super::*;
use crate::error::ErrorKind;
use crate::format::safetensors::Element;
use crate::gpu::Adapter;
use crate::kernels::testing::CaseBuilder;
use crate::profile::Profile;
use crate::quant;

fn context(clip: impl Fn(&mut Profile)) -> Context {
    pollster::block_on(async {
        let adapter = Adapter::request(&Default::default()).await.unwrap();
        let mut profile = adapter.profile().clone();
        clip(&mut profile);
        Context::open(&adapter, Some(&profile)).await.unwrap()
    })
}

/// Random vectors near some centres, every seventh the same as the one before it.
fn vectors(seed: u64, count: usize, dims: usize) -> Vec<f32> {
    let mut builder = CaseBuilder::new(seed);
    let centres: Vec<f32> = (0..5 * dims).map(|_| builder.normal()).collect();
    let mut out: Vec<f32> = Vec::with_capacity(count * dims);
    for i in 0..count {
        if i % 7 == 3 {
            out.extend_from_within((i - 1) * dims..);
            continue;
        }
        let centre = builder.bits() as usize % 5 * dims;
        out.extend((0..dims).map(|d| centres[centre + d] + 0.7 * builder.normal()));
    }
    out
}

/// What is stored of a vector.
fn stored(vector: &[f32], dtype: DType, metric: Metric) -> Vec<f64> {
    let length = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let scale = if metric == Metric::Cosine { 1.0 / length } else { 1.0 };
    let mut values: Vec<f32> = vector.iter().map(|&v| (f64::from(v) * scale) as f32).collect();
    values.resize(part::padded(vector.len()), 0.0);
    let mut blocks = Vec::new();
    quant::quantize(dtype, &values, &mut blocks).unwrap();
    quant::dequantize(dtype, &blocks, &mut values).unwrap();
    values[..vector.len()].iter().map(|&v| f64::from(v)).collect()
}

struct Truth {
    dtype: DType,
    metric: Metric,
    dims: usize,
    rows: Vec<(u64, Vec<f64>)>,
}

impl Truth {
    fn new(dtype: DType, metric: Metric, dims: usize, vectors: &[f32]) -> Self {
        let rows = (0..).zip(vectors.chunks_exact(dims).map(|vector| stored(vector, dtype, metric))).collect();
        Self { dtype, metric, dims, rows }
    }

    /// All, the best first.
    fn ranked(&self, query: &[f32]) -> Vec<(u64, f64)> {
        let query = stored(query, DType::F32, self.metric);
        let score = |row: &Vec<f64>| row.iter().zip(&query).map(|(a, b)| a * b).sum::<f64>();
        let mut ranked: Vec<_> = self.rows.iter().map(|(id, row)| (*id, score(row))).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked
    }

    /// Holds hits against the truth: scores as exact as f32 makes them, and another order only where scores are that near.
    fn check(&self, query: &[f32], k: usize, hits: &[Hit]) {
        let ranked = self.ranked(query);
        let case = format!("{} {:?} {} best {k}", self.dtype, self.metric, self.dims);
        assert_eq!(hits.len(), k.min(ranked.len()), "{case}");
        let size = ranked.iter().map(|(_, score)| score.abs()).fold(0.0, f64::max);
        let near = 2e-6 * size.max(1e-6);
        for (i, (hit, &(id, score))) in hits.iter().zip(&ranked).enumerate() {
            assert!((f64::from(hit.score) - score).abs() <= near, "{case}: {i} is {hit:?}, expected {id} {score}");
            if hit.id != id {
                let own = ranked.iter().find(|(id, _)| *id == hit.id).map(|(_, score)| *score);
                let own = own.unwrap_or_else(|| panic!("{case}: {hit:?} is not there"));
                assert!((own - score).abs() <= near && own != score, "{case}: {i} is {hit:?}, expected {id} {score}");
            }
        }
    }
}

fn filled(context: &Context, truth: &Truth, vectors: &[f32]) -> Index {
    let mut index = Index::new(context, truth.dims, truth.dtype, truth.metric).unwrap();
    // In pieces, so that parts are filled up and begun.
    for piece in vectors.chunks(1000 * truth.dims) {
        pollster::block_on(index.add(piece)).unwrap();
    }
    index
}

#[test]
fn search_equals_exact_search() {
    equals_exact_search(&context(|_| ()));
}

#[test]
fn search_without_cooperative_matrices_equals_exact_search() {
    equals_exact_search(&context(|profile| profile.cooperative_matrices.clear()));
}

/// More queries than a plan takes, several parts, and parts whose scores are written in pieces.
#[test]
fn many_queries_over_parts_in_pieces() {
    let (dims, dtype, metric) = (32, DType::F16, Metric::Cosine);
    let context = context(|profile| {
        profile.limits.max_binding_bytes = 128 << 10;
        profile.cooperative_matrices.clear();
    });
    let vectors = vectors(6, 5000, dims);
    let truth = Truth::new(dtype, metric, dims, &vectors);
    let mut index = filled(&context, &truth, &vectors);
    assert_eq!(index.parts.len(), 3);
    let queries = self::vectors(7, 65, dims);
    for k in [1, 256] {
        let hits = pollster::block_on(index.search(&queries, k)).unwrap();
        assert_eq!(hits.len(), 65);
        queries.chunks_exact(dims).zip(&hits).for_each(|(query, hits)| truth.check(query, k, hits));
    }
    for (count, k) in [(0, 5), (65, 5), (1, 0)] {
        let error = index.plan_for(&queries[..count * dims], k).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape, "{error}");
    }
}

/// More groups hold the best score than are chosen: the lowest ids are found.
#[test]
fn equal_scores_go_by_the_lowest_id() {
    let context = context(|_| ());
    let (dims, count) = (32, 2000);
    let one = vectors(9, 1, dims);
    let mut index = Index::new(&context, dims, DType::F16, Metric::Cosine).unwrap();
    pollster::block_on(index.add(&one.repeat(count))).unwrap();
    assert_eq!(index.remove(&[0, 2, 40]), 3);
    for k in [4, 100] {
        let hits = pollster::block_on(index.search(&one.repeat(3), k)).unwrap();
        let expected: Vec<u64> = (0..count as u64).filter(|id| ![0, 2, 40].contains(id)).take(k).collect();
        for hits in hits {
            assert_eq!(hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), expected);
        }
    }
}

fn equals_exact_search(context: &Context) {
    for (dtype, metric, dims, count) in [
        (DType::F32, Metric::Cosine, 48, 900),
        (DType::F16, Metric::Cosine, 384, 2500),
        (DType::Q8_0, Metric::Dot, 100, 1500),
        (DType::F16, Metric::Dot, 33, 5),
    ] {
        let vectors = vectors(7, count, dims);
        let truth = Truth::new(dtype, metric, dims, &vectors);
        let mut index = filled(context, &truth, &vectors);
        let queries = self::vectors(8, 5, dims);
        for (k, from) in [(5, 0), (1, 1), (40, 0)] {
            let one = &queries[from * dims..][..dims];
            let hits = pollster::block_on(index.search(one, k)).unwrap();
            truth.check(one, k, &hits[0]);
        }
        // What f16 does not hold is searched for as well.
        for scale in [1.0, 1e-7, 1e6] {
            let queries: Vec<f32> = queries.iter().map(|value| value * scale).collect();
            let hits = pollster::block_on(index.search(&queries, 7)).unwrap();
            assert_eq!(hits.len(), 5);
            for (query, hits) in queries.chunks_exact(dims).zip(&hits) {
                truth.check(query, 7, hits);
            }
        }
    }
}

#[test]
fn parts_removals_and_files_change_nothing() {
    let (dtype, metric, dims, count) = (DType::F16, Metric::Cosine, 128, 5000);
    // 1024 rows a part: five parts.
    let context = context(|profile| profile.limits.max_binding_bytes = 256 << 10);
    let vectors = vectors(3, count, dims);
    let mut truth = Truth::new(dtype, metric, dims, &vectors);
    let mut index = filled(&context, &truth, &vectors);
    assert!(index.parts.len() >= 5, "{} parts", index.parts.len());
    let queries = self::vectors(4, 3, dims);
    let check = |index: &mut Index, truth: &Truth| {
        for k in [3, 20] {
            let one = pollster::block_on(index.search(&queries[..dims], k)).unwrap();
            truth.check(&queries[..dims], k, &one[0]);
            let all = pollster::block_on(index.search(&queries, k)).unwrap();
            queries.chunks_exact(dims).zip(&all).for_each(|(query, hits)| truth.check(query, k, hits));
        }
    };
    check(&mut index, &truth);

    // The best go, and some of every part.
    let mut gone: Vec<u64> = truth.ranked(&queries[..dims])[..10].iter().map(|(id, _)| *id).collect();
    gone.extend((0..count as u64).step_by(97));
    gone.sort_unstable();
    gone.dedup();
    assert_eq!(index.remove(&gone), gone.len());
    assert_eq!((index.remove(&gone), index.remove(&[u64::MAX])), (0, 0));
    assert!(!index.contains(gone[0]) && index.contains(1));
    truth.rows.retain(|(id, _)| gone.binary_search(id).is_err());
    assert_eq!(index.len(), truth.rows.len());
    check(&mut index, &truth);

    let extra = Extra { name: "texts".into(), element: Element::U8, shape: vec![3], bytes: vec![1, 2, 3] };
    let mut file = Vec::new();
    pollster::block_on(index.save(&mut file, &[extra])).unwrap();
    let mut loaded = pollster::block_on(Index::load(&context, Arc::new(file.clone()))).unwrap();
    assert_eq!((loaded.len(), loaded.next_id, loaded.metric()), (index.len(), count as u64, metric));
    check(&mut loaded, &truth);

    // New vectors get new ids.
    let more = self::vectors(5, 10, dims);
    assert_eq!(pollster::block_on(loaded.add(&more)).unwrap(), 5000..5010);
    truth.rows.extend((5000..).zip(more.chunks_exact(dims).map(|vector| stored(vector, dtype, metric))));
    check(&mut loaded, &truth);

    for (at, expected) in [(8, "index: metadata"), (0, "safetensors")] {
        let mut broken = file.clone();
        if at == 0 {
            broken.truncate(1000);
        } else {
            let text = String::from_utf8_lossy(&broken[..600]).replace("metric", "mctric");
            broken.splice(..600, text.into_bytes());
        }
        let error = pollster::block_on(Index::load(&context, Arc::new(broken))).map(|_| ()).unwrap_err();
        assert!(error.kind() == ErrorKind::Format && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn every_format_survives_a_file() {
    let context = context(|_| ());
    for (dtype, dims) in [(DType::F32, 5), (DType::F16, 40), (DType::Q8_0, 70)] {
        let vectors = vectors(1, 30, dims);
        let truth = Truth::new(dtype, Metric::Dot, dims, &vectors);
        let index = filled(&context, &truth, &vectors);
        let mut file = Vec::new();
        pollster::block_on(index.save(&mut file, &[])).unwrap();
        let mut loaded = pollster::block_on(Index::load(&context, Arc::new(file.clone()))).unwrap();
        truth.check(&vectors[..dims], 9, &pollster::block_on(loaded.search(&vectors[..dims], 9)).unwrap()[0]);
        let mut again = Vec::new();
        pollster::block_on(loaded.save(&mut again, &[])).unwrap();
        assert!(file == again, "{dtype}: another file");
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let context = context(|_| ());
    let new = |dims, dtype| Index::new(&context, dims, dtype, Metric::Dot).map(|_| ()).unwrap_err().kind();
    assert_eq!((new(0, DType::F32), new(8, DType::Q4_0)), (ErrorKind::Shape, ErrorKind::Unsupported));
    let mut index = Index::new(&context, 2, DType::F16, Metric::Cosine).unwrap();
    let error = pollster::block_on(index.add(&[1.0, 2.0, f32::NAN, 0.0])).unwrap_err();
    assert_eq!(error.to_string(), "vectors: number 1 has NaN, expected finite numbers");
    let error = pollster::block_on(index.add(&[1.0])).unwrap_err();
    assert_eq!(error.to_string(), "vectors: 1 numbers, expected a multiple of 2");
    assert_eq!(pollster::block_on(index.search(&[1.0, 0.0], 3)).unwrap(), [vec![]]);
    for k in [0, 257] {
        assert_eq!(pollster::block_on(index.search(&[1.0, 0.0], k)).unwrap_err().kind(), ErrorKind::Shape);
    }
    // A vector of zeros has no direction: its cosine counts as 0.
    pollster::block_on(index.add(&[0.0, 0.0, -1.0, 0.0, 1.0, 1.0])).unwrap();
    let hits = pollster::block_on(index.search(&[1.0, 0.0], 5)).unwrap();
    assert_eq!(hits[0].iter().map(|hit| hit.id).collect::<Vec<_>>(), [2, 0, 1]);
}
