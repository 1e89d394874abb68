//! [`RequestStream`]: the tokens of one request, and [`Idle`]: the end of all of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;

use super::Shared;
use crate::error::Result;
use crate::format::source::BoxFuture;
use crate::generate::Finish;

/// A request's tokens as they are chosen. Polling it moves all requests of its scheduler on. Dropping it cancels the
/// request: its slot and pages are free at once, and what is submitted runs out unseen.
pub struct RequestStream {
    shared: Arc<Shared>,
    id: u64,
}

impl RequestStream {
    pub(super) fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self { shared, id }
    }

    /// The next token; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "the name that every stream's next item goes by")]
    pub fn next(&mut self) -> BoxFuture<'_, Option<Result<u32>>> {
        Box::pin(futures_util::StreamExt::next(self))
    }

    /// Why the request ended; `None` before that, and where it ended with an error.
    pub fn finish(&self) -> Option<Finish> {
        self.shared.core().finish_of(self.id)
    }
}

impl Stream for RequestStream {
    type Item = Result<u32>;

    fn poll_next(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.shared.poll(self.id, task, |core| core.take(self.id))
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        self.shared.core().cancel(self.id);
        self.shared.wakers.remove(self.id);
        // Another task goes on with the rest.
        self.shared.wakers.wake_all();
    }
}

/// Ready once no request is left.
pub(super) struct Idle<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Idle<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, number: shared.wakers.number() }
    }
}

impl Future for Idle<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let look = |core: &mut super::core::Core| if core.is_idle() { Poll::Ready(()) } else { Poll::Pending };
        self.shared.poll(self.number, task, look)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.shared.wakers.remove(self.number);
    }
}
