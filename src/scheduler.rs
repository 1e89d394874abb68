//! [`Scheduler`]: many sequences at once. Requests join and leave a running decode; each has a [`RequestStream`].
//!
//! A turn is a decode step of all sequences that run, then a chunk of a newcomer's prompt, so that a long prompt never
//! stops the others. The cache is in pages that all sequences share: a prompt that begins as another one did finds its
//! pages there (as in vLLM's automatic prefix caching, by the tokens themselves instead of their hashes). Where pages run
//! out, the youngest request gives up its own and is computed again later. There is no thread: whoever polls a stream, or
//! [`Scheduler::run_until_idle`], moves all requests on.
//!
//! ```
//! # pollster::block_on(async {
//! use anygpu::chat::{Message, Role};
//! use anygpu::format::source::MappedFile;
//! use anygpu::generate::{GenerateOptions, Model};
//! use anygpu::gpu::{Adapter, Context};
//! use anygpu::scheduler::{Scheduler, SchedulerOptions};
//!
//! let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
//! let file = std::sync::Arc::new(MappedFile::open("benches/models/anygpu-rust-6m-f16.gguf")?);
//! let model = Model::load(&context, file, |_| {}).await?;
//! let (tokenizer, template) = (model.tokenizer()?, model.chat_template()?);
//!
//! let options = SchedulerOptions { context_length: 256, slots: 4, ..Default::default() };
//! let scheduler = Scheduler::new(&model, options)?;
//! let ask = |text| -> anygpu::Result<_> {
//!     let prompt = template.encode(tokenizer, &[Message::new(Role::User, text)], true)?;
//!     scheduler.submit(&prompt, GenerateOptions { max_tokens: 4, ..Default::default() })
//! };
//! let mut streams = [ask("hello")?, ask("thanks")?];
//! // Reading one moves the other on too.
//! let mut first = Vec::new();
//! while let Some(token) = streams[0].next().await {
//!     first.push(token?);
//! }
//! assert_eq!(tokenizer.decode(&first[..1], true)?, "Hello");
//! assert!(streams[1].next().await.is_some());
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

mod core;
mod options;
mod pool;
mod request;
mod stream;
mod wakers;

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as TaskContext, Poll, Waker};

use self::core::Core;
use crate::error::Result;
use crate::generate::{GenerateOptions, Model};
pub use options::{Counts, SchedulerOptions};
pub use stream::RequestStream;
use wakers::Wakers;

/// What streams and their scheduler share.
struct Shared {
    core: Mutex<Core>,
    wakers: Arc<Wakers>,
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Moves all requests on and looks at what has become of one. Whoever else waits hears of it from now on.
    fn poll<T>(&self, id: u64, task: &TaskContext<'_>, look: impl FnOnce(&mut Core) -> Poll<T>) -> Poll<T> {
        self.wakers.set(id, task.waker().clone());
        let all = Waker::from(self.wakers.clone());
        let mut core = self.core();
        let others = core.drive(&mut TaskContext::from_waker(&all));
        let found = look(&mut core);
        // Wakers run code of others, which may come back here.
        drop(core);
        if found.is_ready() {
            self.wakers.remove(id);
        }
        if others {
            self.wakers.wake_all();
        }
        found
    }
}

/// Runs many requests at once on one model and one cache. Clones are the same scheduler; streams outlive it.
#[derive(Clone)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    /// A scheduler with its own cache. Plans are built at their first use.
    ///
    /// # Errors
    /// `OutOfMemory` where the cache does not fit; `Shape` for options out of range, among them fewer pages than one
    /// sequence can take.
    pub fn new(model: &Model, options: SchedulerOptions) -> Result<Self> {
        let core = Mutex::new(Core::new(model, options)?);
        Ok(Self { shared: Arc::new(Shared { core, wakers: Arc::default() }) })
    }

    /// Asks for the tokens that follow `prompt`. Requests get slots in the order in which they come. Dropping the stream
    /// cancels.
    ///
    /// # Errors
    /// `Shape` where there is no token, one is out of range, the prompt is longer than a context, or sampling out of range.
    pub fn submit(&self, prompt: &[u32], options: GenerateOptions) -> Result<RequestStream> {
        let mut core = self.shared.core();
        let id = self.shared.wakers.number();
        core.add(id, prompt, options)?;
        drop(core);
        // Whoever polls already takes it along.
        self.shared.wakers.wake_all();
        Ok(RequestStream::new(self.shared.clone(), id))
    }

    /// Moves all requests on until each has ended, whether their streams are read or not: their tokens are kept for them. For
    /// a thread beside those that read streams, or to warm up.
    ///
    /// ```no_run
    /// # fn run(scheduler: anygpu::scheduler::Scheduler) {
    /// let driver = std::thread::spawn(move || pollster::block_on(scheduler.run_until_idle()));
    /// # }
    /// ```
    pub async fn run_until_idle(&self) {
        stream::Idle::new(&self.shared).await;
    }

    /// What it has done and what it holds.
    pub fn counts(&self) -> Counts {
        self.shared.core().counts()
    }

    /// The model.
    pub fn model(&self) -> Model {
        self.shared.core().model().clone()
    }

    /// How it works.
    pub fn options(&self) -> SchedulerOptions {
        self.shared.core().options().clone()
    }

    /// Positions that a sequence can have.
    pub fn context_length(&self) -> usize {
        self.shared.core().context_length()
    }
}

#[cfg(test)]
mod tests;
