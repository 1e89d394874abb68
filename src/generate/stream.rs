//! [`Session::generate`]: a stream of tokens that can be dropped at any time.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;
use futures_util::stream;

use super::options::{ContextFull, GenerateOptions};
use super::session::{Arrivals, Session};
use super::slots::full;
use crate::error::Result;
use crate::format::source::BoxFuture;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was chosen.
    Stop,
    /// `max_tokens` were delivered.
    Length,
}

/// What a generation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Tokens of the prompt that were computed: those that the cache lacked.
    pub prefilled: usize,
    /// Tokens delivered.
    pub delivered: usize,
    /// Decode steps submitted.
    pub steps: usize,
    /// Times that the context was shifted.
    pub shifts: usize,
}

/// Tokens as they are chosen. Dropping it cancels: nothing more is delivered, what is submitted (at most
/// [`ahead`](super::SessionOptions::ahead) steps, or two chunks of prefill) runs out, and the session can be used again.
pub struct TokenStream<'a> {
    inner: Pin<Box<dyn StreamAndSend<'a>>>,
}

#[cfg(not(target_arch = "wasm32"))]
trait StreamAndSend<'a>: Stream<Item = Result<u32>> + Send + 'a {}
#[cfg(not(target_arch = "wasm32"))]
impl<'a, T: Stream<Item = Result<u32>> + Send + 'a> StreamAndSend<'a> for T {}
#[cfg(target_arch = "wasm32")]
trait StreamAndSend<'a>: Stream<Item = Result<u32>> + 'a {}
#[cfg(target_arch = "wasm32")]
impl<'a, T: Stream<Item = Result<u32>> + 'a> StreamAndSend<'a> for T {}

impl Stream for TokenStream<'_> {
    type Item = Result<u32>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(context)
    }
}

impl TokenStream<'_> {
    /// The next token; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "the name that every stream's next item goes by")]
    pub fn next(&mut self) -> BoxFuture<'_, Option<Result<u32>>> {
        Box::pin(futures_util::StreamExt::next(&mut self.inner))
    }
}

struct Run<'a> {
    session: &'a mut Session,
    options: GenerateOptions,
    prompt: Vec<u32>,
    /// What has been submitted and not delivered.
    arrivals: Arrivals,
    /// The position that the next submitted step feeds.
    position: usize,
    /// The token delivered last: the next step feeds it, or has.
    last: Option<u32>,
    /// The last token, where no position was left to feed it.
    unfed: Option<u32>,
    metrics: &'a mut Metrics,
    started: bool,
    ended: bool,
}

impl Session {
    /// Generates from `prompt`, all tokens of the conversation so far: what the cache of slot 0 shares with it is not
    /// computed again. `metrics` is kept up to date while the stream is read.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn run(session: &mut anygpu::generate::Session) -> anygpu::Result<()> {
    /// use anygpu::generate::{GenerateOptions, Metrics};
    /// let mut metrics = Metrics::default();
    /// let mut tokens = session.generate(&[1, 2, 3], GenerateOptions { max_tokens: 16, ..Default::default() }, &mut metrics);
    /// while let Some(token) = tokens.next().await {
    ///     println!("{}", token?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn generate<'a>(
        &'a mut self,
        prompt: &[u32],
        options: GenerateOptions,
        metrics: &'a mut Metrics,
    ) -> TokenStream<'a> {
        *metrics = Metrics::default();
        let arrivals = Arrivals::new(self.step_ms);
        let run = Run {
            session: self,
            options,
            prompt: prompt.to_vec(),
            arrivals,
            position: 0,
            last: None,
            unfed: None,
            metrics,
            started: false,
            ended: false,
        };
        let inner = stream::unfold(run, |mut run| async move {
            if run.ended {
                return None;
            }
            let item = run.next().await.transpose();
            run.ended = !matches!(item, Some(Ok(_)));
            item.map(|item| (item, run))
        });
        TokenStream { inner: Box::pin(inner) }
    }
}

impl Run<'_> {
    async fn start(&mut self) -> Result<()> {
        let before = self.session.prefilled_tokens();
        let prompt = std::mem::take(&mut self.prompt);
        self.session.extend(0, &prompt, &self.options.sampling).await?;
        self.metrics.prefilled += self.session.prefilled_tokens() - before;
        self.position = prompt.len();
        self.arrivals.push(self.session.read_state()?, 1);
        Ok(())
    }

    /// How many steps are to be submitted now, together.
    fn wanted(&self) -> usize {
        let coming = self.metrics.delivered + self.arrivals.len();
        let left = match self.options.max_tokens {
            0 => usize::MAX,
            most => most.saturating_sub(coming),
        };
        let room = self.session.context_length() - self.position;
        self.arrivals.room(self.session.options().ahead).min(left).min(room)
    }

    async fn next(&mut self) -> Result<Option<u32>> {
        if !self.started {
            self.started = true;
            self.start().await?;
        } else if let Some(last) = self.last.take() {
            // It is in the cache where a step that feeds it has been submitted.
            match self.position > self.session.tokens[0].len() {
                true => self.session.tokens[0].push(last),
                false => self.unfed = Some(last),
            }
        }
        if self.options.max_tokens != 0 && self.metrics.delivered == self.options.max_tokens {
            return Ok(None);
        }
        let room = self.session.context_length();
        loop {
            let count = self.wanted();
            if count == 0 {
                break;
            }
            self.arrivals.push(self.session.steps_and_read(self.position, count)?, count);
            self.position += count;
            self.metrics.steps += count;
        }
        let Some(states) = self.arrivals.next(|_| ()).await? else {
            return self.when_full(room).await;
        };
        self.session.step_ms = self.arrivals.step_ms();
        let token = states.first().map_or(0, |state| state[0]);
        if self.options.stop_tokens.contains(&token) {
            return Ok(None);
        }
        self.metrics.delivered += 1;
        self.last = Some(token);
        Ok(Some(token))
    }

    /// Nothing is pending and no position is left.
    async fn when_full(&mut self, room: usize) -> Result<Option<u32>> {
        let ContextFull::Shift { keep } = self.options.when_full else { return Err(full(room + 1, room)) };
        let mut tokens = self.session.tokens(0).to_vec();
        tokens.extend(self.unfed.take());
        self.prompt = shifted(&tokens, keep, room).ok_or_else(|| full(room + 1, room))?;
        self.metrics.shifts += 1;
        self.start().await?;
        Box::pin(self.next()).await
    }
}

/// `tokens` without the older half of what follows the first `keep`, at most half of `room`; `None` where there is no half.
pub(crate) fn shifted(tokens: &[u32], keep: usize, room: usize) -> Option<Vec<u32>> {
    let keep = keep.min(room / 2).min(tokens.len());
    let half = (tokens.len() - keep) / 2;
    (half > 0).then(|| tokens[..keep].iter().chain(&tokens[keep + half..]).copied().collect())
}
