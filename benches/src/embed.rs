//! The suite `embed`: an encoder on texts of one length, many at once. The case `tokens` begins with token ids, `texts` with
//! text; both end with vectors on the host. Every timed case first has vectors of its own checked against the plain f32 path.

use anygpu::Result;
use anygpu::embed::{Embedded, Embedder, TextOptions, VectorStream};

use crate::report::{ANYGPU, Report, Row};
use crate::suite::{Clock, heat, kernel_name, timed, warm};

/// The least cosine between a vector of the fast path and one of the plain path: f16 tiles are off by 2^-11 of each factor.
pub const CHECK_COSINE: f64 = 0.999;

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedSettings {
    /// Numbers of texts.
    pub batches: Vec<usize>,
    /// Tokens of a text, those that start and end it among them.
    pub tokens: usize,
    /// Runs of each case, after one that warms up.
    pub repeats: usize,
    /// The name for rows' `model`.
    pub model: String,
    /// The format of the weights, for rows' `dtype`.
    pub dtype: String,
}

/// Words that every vocabulary of the family has as one token each, so that texts have as many tokens as words.
const WORDS: [&str; 32] = [
    "the", "of", "and", "in", "to", "was", "he", "is", "as", "for", "on", "with", "that", "it", "his", "by", "at",
    "from", "her", "she", "you", "had", "an", "were", "but", "be", "this", "are", "not", "my", "they", "one",
];

/// Text `index` of `words` words; the baselines make the same ones.
pub fn text(index: usize, words: usize) -> String {
    let word = |j: usize| WORDS[(index * 31 + j * (7 + index % 5) + j * j) % WORDS.len()];
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

/// The ids of tokens `[count][tokens]`, spread over the vocabulary.
pub fn token_ids(count: usize, tokens: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let id = |i: usize, j: usize| ((i * 104_729 + j * 7919) % (vocabulary - 1) + 1) as u32;
    (0..count).map(|i| (0..tokens).map(|j| id(i, j)).collect()).collect()
}

/// The cosine of two vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// `ok`, or the least cosine between the vectors of two engines.
pub fn verdict(found: &[Vec<f32>], expected: &[Vec<f32>]) -> String {
    // A NaN is no agreement, and `f64::min` would pass over it.
    let worse = |worst: f64, cosine: f64| if cosine.is_nan() || cosine < worst { cosine } else { worst };
    let worst = found.iter().zip(expected).map(|(a, b)| cosine(a, b)).fold(1.0, worse);
    if worst >= CHECK_COSINE && found.len() == expected.len() { "ok".to_owned() } else { format!("cosine {worst:.5}") }
}

/// All vectors of a stream, in the order of the texts.
///
/// # Errors
/// The stream's.
pub async fn collect(mut stream: VectorStream<'_>, count: usize) -> Result<Vec<Vec<f32>>> {
    let mut vectors = vec![Vec::new(); count];
    while let Some(embedded) = stream.next().await {
        let Embedded { index, vector, .. } = embedded?;
        vectors[index] = vector;
    }
    Ok(vectors)
}

/// Runs the suite. `plain` is the same model on the plain f32 path, where answers are to be checked.
///
/// # Errors
/// What stops a run: a lost device, no memory.
pub async fn run(
    embedder: &mut Embedder,
    mut plain: Option<&mut Embedder>,
    settings: &EmbedSettings,
    now: Clock<'_>,
    report: &mut Report,
    on_row: &mut dyn FnMut(&Row),
) -> Result<()> {
    let tokens = settings.tokens;
    let mut checked = None;
    for &batch in &settings.batches {
        let ids = token_ids(batch, tokens, embedder.config().vocab_size);
        // What the special tokens leave.
        let texts: Vec<String> = (0..batch).map(|i| text(i, tokens - 2)).collect();
        // The first and the last ones: these are of different plans where one is too small.
        let few: Vec<usize> = (0..batch).filter(|&i| i < 2 || i + 2 >= batch).collect();
        let mut cases = vec!["tokens"];
        if embedder.tokenizer().is_ok() {
            cases.push("texts");
        }
        for case in cases {
            let options = TextOptions::default();
            let mut check = None;
            let mut expected = Vec::new();
            if let Some(plain) = plain.as_deref_mut() {
                expected = match case {
                    "tokens" => {
                        let few: Vec<Vec<u32>> = few.iter().map(|&i| ids[i].clone()).collect();
                        collect(plain.stream_tokens(&few), few.len()).await?
                    }
                    _ => {
                        let few: Vec<&str> = few.iter().map(|&i| texts[i].as_str()).collect();
                        plain.embed(&few, &options).await?
                    }
                };
            }
            let context = embedder.context().clone();
            let (first_ms, samples) = timed(&context, &report.environment, settings.repeats, now, async || {
                let start = now();
                let vectors = match case {
                    "tokens" => collect(embedder.stream_tokens(&ids), batch).await?,
                    _ => embedder.embed(&texts, &options).await?,
                };
                let ms = now() - start;
                // Once: later runs compute the same.
                if !expected.is_empty() {
                    let found: Vec<Vec<f32>> = few.iter().map(|&i| vectors[i].clone()).collect();
                    check = Some(verdict(&found, &expected));
                    expected.clear();
                }
                if vectors.iter().any(Vec::is_empty) {
                    check = Some("a vector is missing".to_owned());
                }
                Ok(ms)
            })
            .await?;
            checked = check.clone();
            let mut row = Row {
                name: Some(case.to_owned()),
                first_ms: Some(first_ms),
                peak_memory_bytes: Some(embedder.context().memory().peak_bytes()),
                check,
                ..Row::new(ANYGPU, "embed", &settings.model, &settings.dtype)
            }
            .case(batch as u64, tokens as u64, 0, 0)
            .with_samples(&samples);
            row.texts_per_second = crate::stats::median(&samples).map(|ms| batch as f64 / ms * 1e3);
            row.tokens_per_second = row.texts_per_second.map(|rate| rate * tokens as f64);
            on_row(&row);
            report.rows.push(row);
        }
    }
    if embedder.context().profile().features.timestamps {
        // The largest batch.
        let texts = settings.batches.iter().max().copied().unwrap_or(1);
        let batch = embedder.batches(&vec![tokens; texts]).into_iter().max().unwrap_or(1);
        kernels(embedder, batch, settings, checked, report, now, on_row).await?;
    }
    Ok(())
}

/// The steps of the plan for `batch` texts by GPU timestamps, summed over layers, and the whole plan. `check` is of vectors
/// of such plans.
async fn kernels(
    embedder: &Embedder,
    batch: usize,
    settings: &EmbedSettings,
    check: Option<String>,
    report: &mut Report,
    now: Clock<'_>,
    on_row: &mut dyn FnMut(&Row),
) -> Result<()> {
    let texts = token_ids(batch, settings.tokens, embedder.config().vocab_size);
    let plan = embedder.plan_for(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    let work = plan.work();
    heat(embedder.context(), &report.environment, now).await?;
    warm(embedder.context(), &plan, now).await?;
    let repeats = settings.repeats.max(1);
    let mut groups: Vec<(String, f64, u64)> = Vec::new();
    let mut whole = f64::INFINITY;
    for repeat in 0..repeats {
        for (step, work) in plan.time_steps(0).await?.iter().zip(&work) {
            let name = kernel_name(&step.label);
            let at = groups.iter().position(|(known, ..)| *known == name).unwrap_or_else(|| {
                groups.push((name, 0.0, 0));
                groups.len() - 1
            });
            groups[at].1 += step.gpu_ms / repeats as f64;
            groups[at].2 += if repeat == 0 { work.operations } else { 0 };
        }
        whole = whole.min(plan.time(0).await?);
    }
    let operations = groups.iter().map(|group| group.2).sum();
    groups.push(("whole plan".to_owned(), whole, operations));
    for (name, ms, operations) in groups {
        let rate = report.environment.matrix_operations_per_second;
        let row = Row {
            name: Some(name),
            p50_ms: Some(ms),
            operations: (operations > 0).then_some(operations),
            matrix_share: rate.filter(|_| operations > 0).map(|rate| operations as f64 / ms * 1e3 / rate),
            check: check.clone(),
            ..Row::new(ANYGPU, "kernels", &settings.model, &settings.dtype)
        }
        .case(batch as u64, settings.tokens as u64, 0, 0);
        on_row(&row);
        report.rows.push(row);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_as_many_words_as_asked_for() {
        assert_eq!(text(3, 126).split(' ').count(), 126);
        assert_ne!(text(3, 126), text(4, 126));
        assert_eq!(text(0, 4), "the as her they");
    }

    #[test]
    fn verdicts_see_what_differs() {
        let a = vec![vec![1.0, 0.0], vec![0.6, 0.8]];
        assert_eq!(verdict(&a, &a), "ok");
        assert_eq!(verdict(&a, &[vec![1.0, 0.0], vec![0.8, 0.6]]), "cosine 0.96000");
        assert_ne!(verdict(&[vec![f32::NAN, 0.0]], &[vec![1.0, 0.0]]), "ok");
        assert_ne!(verdict(&a[..1], &a), "ok");
    }
}
