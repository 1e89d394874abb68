//! [`Wakers`]: whoever waits for a scheduler. Only the oldest read-back is waited for, by the task that polled last; this
//! wakes all, so that it does not matter which of them goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Wake, Waker};

#[derive(Debug, Default)]
pub(super) struct Wakers {
    waiting: Mutex<HashMap<u64, Waker>>,
    numbers: AtomicU64,
}

impl Wakers {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A number that nobody had before; later ones are larger.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Has `waker` woken next time. Whatever it replaces is dropped outside the lock, as it may own a stream.
    pub fn set(&self, number: u64, waker: Waker) {
        let replaced = self.waiting().insert(number, waker);
        drop(replaced);
    }

    pub fn remove(&self, number: u64) {
        let removed = self.waiting().remove(&number);
        drop(removed);
    }

    pub fn wake_all(&self) {
        let all = std::mem::take(&mut *self.waiting());
        all.into_values().for_each(Waker::wake);
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}
