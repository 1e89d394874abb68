//! GPU buffers that count themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a context's buffers take now, and the most they took.
#[derive(Debug, Default)]
pub struct MemoryTracker {
    current: AtomicU64,
    peak: AtomicU64,
}

impl MemoryTracker {
    pub(super) fn add(&self, bytes: u64) {
        let now = self.current.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, bytes: u64) {
        self.current.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes allocated now.
    pub fn current_bytes(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// The most bytes allocated at one time since [`Self::reset_peak`].
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Starts the peak anew from what is allocated now.
    pub fn reset_peak(&self) {
        self.peak.store(self.current_bytes(), Ordering::Relaxed);
    }
}

/// A buffer on the GPU. Clones share it; the last one frees it.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    raw: wgpu::Buffer,
    id: u64,
    memory: Arc<MemoryTracker>,
}

impl Buffer {
    pub(super) fn new(raw: wgpu::Buffer, memory: Arc<MemoryTracker>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
        memory.add(raw.size());
        Self(Arc::new(Inner { raw, id: NEXT.fetch_add(1, Ordering::Relaxed), memory }))
    }

    /// Size in bytes, a multiple of 4.
    pub fn bytes(&self) -> u64 {
        self.0.raw.size()
    }

    /// A number that no other buffer of this process has; above 2^32.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    pub(crate) fn raw(&self) -> &wgpu::Buffer {
        &self.0.raw
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.memory.sub(self.raw.size());
        // Frees the memory now rather than when the last bind group that mentions the buffer goes; work already
        // submitted still completes.
        self.raw.destroy();
    }
}
