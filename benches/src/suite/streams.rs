//! The suite `streams`: so many readers, each with a request of its own through one scheduler, and with the next as soon as
//! that has ended. Prompts and answers have lengths of their own, so that requests join and leave one by one.

use std::task::Poll;

use anygpu::generate::GenerateOptions;
use anygpu::scheduler::{RequestStream, Scheduler, SchedulerOptions};
use anygpu::{Error, Result};

use super::Suites;
use crate::report::Row;
use crate::stats;

/// A reader's request under way.
struct Reading {
    stream: RequestStream,
    number: usize,
    /// When it was asked for, and when its last token came.
    asked: f64,
    last: Option<f64>,
    tokens: Vec<u32>,
}

/// What came of all requests of a case.
#[derive(Default)]
struct Found {
    first_ms: Vec<f64>,
    token_ms: Vec<f64>,
    tokens: usize,
    total_ms: f64,
    /// Of the last request of all: its number and its tokens.
    last: Option<(usize, Vec<u32>)>,
}

/// From half of `mean` to three halves of it, spread over the requests.
fn length(mean: usize, number: usize) -> usize {
    (mean / 2 + (number * 7919) % (mean + 1)).max(1)
}

impl Suites<'_> {
    fn request(&self, number: usize) -> (Vec<u32>, usize) {
        let prompt = self.tokens(length(self.settings.batch_depth, number + 3), number);
        (prompt, length(self.settings.n_gen, number))
    }

    /// Two rows: tokens a second with the time between two tokens of a stream, and the time to the first.
    pub(super) async fn streams(&mut self, readers: usize) -> Result<()> {
        let (n_gen, n_prompt) = (self.settings.n_gen, self.settings.batch_depth);
        let row = self.row("streams").case(readers as u64, n_prompt as u64, n_gen as u64, 0);
        let longest = (n_gen + n_prompt) * 3 / 2 + 2;
        if !self.fits("streams", &row, longest) {
            return Ok(());
        }
        let options = SchedulerOptions { context_length: longest, slots: readers, ..Default::default() };
        let scheduler = Scheduler::new(self.model, options)?;
        self.read_all(&scheduler, readers, 0..2 * readers).await?;
        self.start_peak();
        let requests = readers * (1 + self.settings.repeats);
        let found = self.read_all(&scheduler, readers, 2 * readers..2 * readers + requests).await?;
        let peak_memory_bytes = Some(self.context().memory().peak_bytes());
        drop(scheduler);
        let mut check = None;
        if let Some((number, tokens)) = found.last.filter(|_| self.settings.check) {
            let (prompt, _) = self.request(number);
            let steps = tokens.len().min(5);
            let mut plain = self.session(prompt.len() + steps + 1, 1, true)?;
            let verdict = super::compare_tokens(&mut plain, &prompt, &tokens[..steps]).await?;
            check = Some(verdict.map_or("ok".to_owned(), |wrong| format!("the last request: {wrong}")));
        }
        let tokens_per_second = Some(found.tokens as f64 / found.total_ms * 1e3);
        let base = Row { peak_memory_bytes, check, ..row };
        self.push(Row { tokens_per_second, ..base.clone() }.with_samples(&found.token_ms));
        let first = Row { name: Some("first token".into()), ..base };
        self.push(Row { note: note(&found.first_ms), ..first }.with_samples(&found.first_ms));
        Ok(())
    }

    /// Has readers work through requests of these numbers.
    async fn read_all(
        &self,
        scheduler: &Scheduler,
        readers: usize,
        mut numbers: std::ops::Range<usize>,
    ) -> Result<Found> {
        let now = self.now;
        let ask = |number: usize| -> Result<Reading> {
            let (prompt, max_tokens) = self.request(number);
            let stream = scheduler.submit(&prompt, GenerateOptions { max_tokens, ..Default::default() })?;
            Ok(Reading { stream, number, asked: now(), last: None, tokens: Vec::new() })
        };
        let mut found = Found::default();
        let start = now();
        let mut readings = numbers.by_ref().take(readers).map(ask).collect::<Result<Vec<_>>>()?;
        while !readings.is_empty() {
            self.check_stop()?;
            // Whichever has something.
            let (at, item) = std::future::poll_fn(|task| {
                for (at, reading) in readings.iter_mut().enumerate() {
                    if let Poll::Ready(item) = reading.stream.next().as_mut().poll(task) {
                        return Poll::Ready((at, item));
                    }
                }
                Poll::Pending
            })
            .await;
            let reading = &mut readings[at];
            match item {
                Some(token) => {
                    let arrived = now();
                    reading.tokens.push(token?);
                    match reading.last.replace(arrived) {
                        Some(last) => found.token_ms.push(arrived - last),
                        None => found.first_ms.push(arrived - reading.asked),
                    }
                    found.tokens += 1;
                }
                None => {
                    let done = readings.swap_remove(at);
                    let (_, wanted) = self.request(done.number);
                    if done.tokens.len() != wanted {
                        let (found, number) = (done.tokens.len(), done.number);
                        return Err(Error::shape(format!("request {number}: {found} tokens, expected {wanted}")));
                    }
                    found.last = Some((done.number, done.tokens));
                    readings.extend(numbers.next().map(ask).transpose()?);
                }
            }
        }
        found.total_ms = now() - start;
        Ok(found)
    }
}

/// The median, where there are too few samples for percentiles to show it.
fn note(samples: &[f64]) -> Option<String> {
    let few = stats::percentile(samples, 50.0).is_none();
    stats::median(samples).filter(|_| few).map(|ms| format!("median of {}: {ms:.1} ms", samples.len()))
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn lengths_spread_around_their_mean() {
        for mean in [1, 16, 128] {
            let lengths: Vec<usize> = (0..200).map(|number| length(mean, number)).collect();
            assert!(
                lengths.iter().all(|&length| (1.max(mean / 2)..=mean * 3 / 2 + 1).contains(&length)),
                "{lengths:?}"
            );
            let average = lengths.iter().sum::<usize>() as f64 / 200.0;
            assert!((average - mean as f64).abs() <= 1.0 + 0.1 * mean as f64, "{mean}: {average}");
        }
    }
}
