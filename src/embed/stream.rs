//! [`VectorStream`]: vectors as they are computed. Texts are encoded a window at a time while the GPU works on the window
//! before; within one they are sorted by length and packed.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;
use futures_util::stream;

use super::reader::Parts;
use super::{Embedder, Reader, TextOptions};
use crate::error::Result;
use crate::format::source::{BoxFuture, MaybeSend};

/// Batches submitted before the first is waited for.
const AHEAD: usize = 3;
/// Texts encoded and sorted together; and at most this many bytes of them.
const WINDOW_TEXTS: usize = 8192;
const WINDOW_BYTES: usize = 16 << 20;

/// A text's vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// The text's number among those given.
    pub index: usize,
    /// Its vector. Of a text without a token, zeros.
    pub vector: Vec<f32>,
    /// Tokens computed for it.
    pub tokens: usize,
    /// Whether its end was left out.
    pub truncated: bool,
}

/// Vectors as they are computed, not in the order of the texts. Dropping it cancels: nothing more is submitted, what is
/// submitted runs out, and the embedder can be used again.
pub struct VectorStream<'a> {
    inner: Pin<Box<dyn StreamAndSend<'a>>>,
}

#[cfg(not(target_arch = "wasm32"))]
trait StreamAndSend<'a>: Stream<Item = Result<Embedded>> + Send + 'a {}
#[cfg(not(target_arch = "wasm32"))]
impl<'a, T: Stream<Item = Result<Embedded>> + Send + 'a> StreamAndSend<'a> for T {}
#[cfg(target_arch = "wasm32")]
trait StreamAndSend<'a>: Stream<Item = Result<Embedded>> + 'a {}
#[cfg(target_arch = "wasm32")]
impl<'a, T: Stream<Item = Result<Embedded>> + 'a> StreamAndSend<'a> for T {}

impl Stream for VectorStream<'_> {
    type Item = Result<Embedded>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(context)
    }
}

impl VectorStream<'_> {
    /// The next vector; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "the name that every stream's next item goes by")]
    pub fn next(&mut self) -> BoxFuture<'_, Option<Result<Embedded>>> {
        Box::pin(futures_util::StreamExt::next(&mut self.inner))
    }

    /// All vectors of `count` texts, in their order.
    pub(super) async fn all(mut self, count: usize) -> Result<Vec<Vec<f32>>> {
        let mut vectors = vec![Vec::new(); count];
        while let Some(embedded) = self.next().await {
            let Embedded { index, vector, .. } = embedded?;
            vectors[index] = vector;
        }
        Ok(vectors)
    }
}

/// Vectors of a batch on their way from the device, one behind the other.
pub(super) type Pending = BoxFuture<'static, Result<Vec<f32>>>;

/// What computes the vectors of tokens.
pub(super) trait Compute: MaybeSend {
    /// How texts are read.
    fn reader(&self) -> &Reader;

    /// How many parts of these lengths, which grow, each batch has.
    fn batches(&self, lengths: &[usize]) -> Vec<usize>;

    /// Submits a batch of parts to the device.
    fn submit(&mut self, parts: &[&[u32]]) -> Result<Pending>;
}

/// Where parts come from.
pub(super) enum Input<'a> {
    Texts { texts: Vec<&'a str>, options: TextOptions },
    Tokens(&'a [Vec<u32>]),
}

impl<'a> Input<'a> {
    pub(super) fn texts<T: AsRef<str>>(texts: &'a [T], options: &TextOptions) -> Self {
        Input::Texts { texts: texts.iter().map(AsRef::as_ref).collect(), options: options.clone() }
    }
}

/// A part on its way: its text and its tokens.
struct Part {
    index: usize,
    tokens: Vec<u32>,
}

/// A text of which parts are on their way.
struct Open {
    /// Of the parts' vectors, where there is more than one.
    sum: Vec<f64>,
    parts: usize,
    left: usize,
    tokens: usize,
    truncated: bool,
}

struct Run<'a, C> {
    compute: &'a mut C,
    input: Input<'a>,
    /// The first text that is not encoded yet.
    next: usize,
    /// Batches that are not submitted yet, the next one at the end.
    batches: Vec<Vec<Part>>,
    /// Batches submitted, oldest first: text and tokens of each part.
    pending: VecDeque<(Vec<(usize, usize)>, Pending)>,
    open: HashMap<usize, Open>,
    done: VecDeque<Embedded>,
}

impl Embedder {
    /// The vectors of texts as they are computed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn run(embedder: &mut anygpu::embed::Embedder) -> anygpu::Result<()> {
    /// let mut vectors = embedder.stream(&["one text", "another"], &Default::default());
    /// while let Some(embedded) = vectors.next().await {
    ///     let embedded = embedded?;
    ///     println!("{}: {} tokens", embedded.index, embedded.tokens);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream<'a, T: AsRef<str>>(&'a mut self, texts: &'a [T], options: &TextOptions) -> VectorStream<'a> {
        run(self, Input::texts(texts, options))
    }

    /// The vectors of texts that are tokens already, those that start and end a text among them.
    ///
    /// # Errors
    /// In the stream: `Shape` for a token that is not in the vocabulary, or more of them than [`Self::max_tokens`].
    pub fn stream_tokens<'a>(&'a mut self, texts: &'a [Vec<u32>]) -> VectorStream<'a> {
        run(self, Input::Tokens(texts))
    }
}

/// The vectors of `input` as they are computed.
pub(super) fn run<'a>(compute: &'a mut impl Compute, input: Input<'a>) -> VectorStream<'a> {
    let run = Run {
        compute,
        input,
        next: 0,
        batches: Vec::new(),
        pending: VecDeque::new(),
        open: HashMap::new(),
        done: VecDeque::new(),
    };
    let inner = stream::unfold(Some(run), |run| async move {
        let mut run = run?;
        match run.next().await {
            Ok(Some(embedded)) => Some((Ok(embedded), Some(run))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    VectorStream { inner: Box::pin(inner) }
}

impl<C: Compute> Run<'_, C> {
    async fn next(&mut self) -> Result<Option<Embedded>> {
        loop {
            if let Some(embedded) = self.done.pop_front() {
                return Ok(Some(embedded));
            }
            while self.pending.len() < AHEAD {
                if self.batches.is_empty() && !self.encode()? {
                    break;
                }
                let Some(batch) = self.batches.pop() else { continue };
                let tokens: Vec<&[u32]> = batch.iter().map(|part| part.tokens.as_slice()).collect();
                let pending = self.compute.submit(&tokens)?;
                self.pending.push_back((batch.iter().map(|part| (part.index, part.tokens.len())).collect(), pending));
            }
            let Some((parts, pending)) = self.pending.pop_front() else {
                return Ok(self.done.pop_front());
            };
            let vectors = pending.await?;
            let d = self.compute.reader().dimensions();
            for ((index, tokens), vector) in parts.into_iter().zip(vectors.chunks_exact(d)) {
                self.add(index, tokens, vector);
            }
        }
    }

    /// Encodes the next window and cuts it into batches; false where no text is left.
    fn encode(&mut self) -> Result<bool> {
        let start = self.next;
        let reader = self.compute.reader();
        let encoded = match &self.input {
            Input::Texts { texts, options } => {
                let mut bytes = 0;
                let fits = |text: &&&str| {
                    bytes += text.len();
                    bytes <= WINDOW_BYTES
                };
                let count = texts[start..].iter().take(WINDOW_TEXTS).take_while(fits).count();
                // A single text may be larger than a window.
                let end = (start + count.max(1)).min(texts.len());
                self.next = end;
                encode_all(reader, &texts[start..end], options)
            }
            Input::Tokens(texts) => {
                self.next = (start + WINDOW_TEXTS).min(texts.len());
                texts[start..self.next].iter().map(|tokens| reader.checked(tokens)).collect()
            }
        };
        let mut parts = Vec::new();
        for (offset, encoded) in encoded.into_iter().enumerate() {
            let index = start + offset;
            let encoded = encoded.map_err(|error| error.context(format!("text {index}")))?;
            let tokens: usize = encoded.tokens.iter().map(Vec::len).sum();
            if tokens == 0 {
                let vector = vec![0.0; reader.dimensions()];
                self.done.push_back(Embedded { index, vector, tokens, truncated: false });
                continue;
            }
            let (count, truncated) = (encoded.tokens.len(), encoded.truncated);
            let sum = if count > 1 { vec![0.0; reader.dimensions()] } else { Vec::new() };
            self.open.insert(index, Open { sum, parts: count, left: count, tokens, truncated });
            parts.extend(encoded.tokens.into_iter().map(|tokens| Part { index, tokens }));
        }
        // Neighbours of one length share tiles of attention best; the longest are submitted first.
        parts.sort_by_key(|part| part.tokens.len());
        let lengths: Vec<usize> = parts.iter().map(|part| part.tokens.len()).collect();
        let mut parts = parts.into_iter();
        for count in self.compute.batches(&lengths) {
            self.batches.push(parts.by_ref().take(count).collect());
        }
        Ok(self.next > start)
    }

    /// Adds a part's vector to its text.
    fn add(&mut self, index: usize, tokens: usize, vector: &[f32]) {
        let Some(open) = self.open.get_mut(&index) else { return };
        open.sum.iter_mut().zip(vector).for_each(|(sum, &v)| *sum += f64::from(v) * tokens as f64);
        open.left -= 1;
        if open.left > 0 {
            return;
        }
        let Some(open) = self.open.remove(&index) else { return };
        // One part is as the GPU computed it, to the bit.
        let vector = if open.parts == 1 { vector.to_vec() } else { mean(&open, self.compute.reader().is_normalized()) };
        self.done.push_back(Embedded { index, vector, tokens: open.tokens, truncated: open.truncated });
    }
}

fn mean(open: &Open, normalize: bool) -> Vec<f32> {
    let length = open.sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    let divisor = if normalize { length.max(1e-12) } else { open.tokens as f64 };
    open.sum.iter().map(|v| (v / divisor) as f32).collect()
}

/// Encodes texts, on all cores natively.
fn encode_all(reader: &Reader, texts: &[&str], options: &TextOptions) -> Vec<Result<Parts>> {
    let encode = |texts: &[&str]| texts.iter().map(|text| reader.parts(text, options)).collect::<Vec<_>>();
    #[cfg(not(target_arch = "wasm32"))]
    {
        // What a thread must have to do to be worth starting.
        const BYTES: usize = 16 << 10;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let workers = cores.min(bytes / BYTES).min(texts.len());
        if workers > 1 {
            return encode_on_threads(reader, texts, options, workers);
        }
    }
    encode(texts)
}

/// The same on as many threads, which take texts as they are ready for them: lengths differ much.
#[cfg(not(target_arch = "wasm32"))]
fn encode_on_threads(reader: &Reader, texts: &[&str], options: &TextOptions, workers: usize) -> Vec<Result<Parts>> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    const TAKEN: usize = 16;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let start = next.fetch_add(TAKEN, Ordering::Relaxed);
            let Some(taken) = texts.get(start..texts.len().min(start + TAKEN)).filter(|taken| !taken.is_empty()) else {
                return found;
            };
            let encoded = taken.iter().map(|text| reader.parts(text, options));
            found.extend((start..).zip(encoded));
        }
    };
    let mut found: Vec<(usize, Result<Parts>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|found| found.unwrap_or_default()).collect()
    });
    found.sort_by_key(|(index, _)| *index);
    let mut found = found.into_iter().peekable();
    let lost = || Err(crate::error::Error::tokenizer("an encoding thread panicked"));
    let of = |index| found.next_if(|(i, _)| *i == index).map_or_else(lost, |(_, parts)| parts);
    (0..texts.len()).map(of).collect()
}
