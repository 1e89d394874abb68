//! Reading buffers back without blocking: copies into mappable buffers that are used again.

use std::sync::{Arc, Mutex};

use futures_channel::oneshot;

use super::buffer::Buffer;
use super::context::{Context, Wait};
use crate::error::{Error, Result};

/// A pool of mappable buffers by size.
#[derive(Debug, Default)]
pub(super) struct StagingPool {
    free: Mutex<Vec<wgpu::Buffer>>,
}

/// Buffers kept for use again; more than a few only hold memory.
const KEPT: usize = 16;

impl StagingPool {
    fn take(&self, device: &wgpu::Device, bytes: u64) -> wgpu::Buffer {
        let mut free = self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(index) = free.iter().position(|buffer| buffer.size() == bytes) {
            return free.swap_remove(index);
        }
        drop(free);
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    fn give(&self, buffer: wgpu::Buffer) {
        let mut free = self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if free.len() < KEPT {
            free.push(buffer);
        }
    }
}

/// Bytes on their way from the GPU. Record it into an encoder, submit that, then wait for [`Pending::bytes`].
#[derive(Debug)]
pub struct Readback {
    context: Context,
    staging: wgpu::Buffer,
}

/// Bytes whose copy has been submitted.
#[derive(Debug)]
pub struct Pending {
    context: Context,
    staging: Option<wgpu::Buffer>,
    mapped: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Readback {
    pub(super) fn new(context: &Context, bytes: u64) -> Self {
        Self { context: context.clone(), staging: context.staging().take(context.device(), bytes) }
    }

    /// Copies bytes of a buffer to `at` of what is read back.
    pub(crate) fn copy(&self, encoder: &mut wgpu::CommandEncoder, source: &Buffer, offset: u64, at: u64, bytes: u64) {
        encoder.copy_buffer_to_buffer(source.raw(), offset, &self.staging, at, bytes);
    }

    /// Asks for the mapping; to be called once the encoder has been submitted.
    pub(crate) fn submitted(self, submission: wgpu::SubmissionIndex) -> Pending {
        self.map(submission, Wait::Asleep)
    }

    /// The same for bytes that somebody waits for and that come within milliseconds: a core is busy until they are there, as with what
    /// other runtimes do at their synchronisations.
    pub(crate) fn submitted_awake(self, submission: wgpu::SubmissionIndex) -> Pending {
        self.map(submission, Wait::Awake)
    }

    fn map(self, submission: wgpu::SubmissionIndex, wait: Wait) -> Pending {
        let (sender, mapped) = oneshot::channel();
        self.staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // Nobody waits any more where the receiver was dropped.
            let _ = sender.send(result);
        });
        self.context.wake_poller(submission, wait);
        Pending { context: self.context, staging: Some(self.staging), mapped }
    }
}

impl Pending {
    /// The bytes, once the GPU has written them.
    ///
    /// # Errors
    /// The context's fault (`DeviceLost`, `OutOfMemory`, …) where the copy or the mapping failed.
    pub async fn bytes(mut self) -> Result<Vec<u8>> {
        let mapped = (&mut self.mapped).await;
        self.context.check()?;
        match (mapped, self.staging.take()) {
            (Ok(Ok(())), Some(staging)) => {
                let bytes = staging
                    .get_mapped_range(..)
                    .map(|range| range.to_vec())
                    .map_err(|error| Error::adapter(format!("read-back: {error}")));
                staging.unmap();
                self.context.staging().give(staging);
                bytes
            }
            _ => Err(Error::device_lost("read-back failed: the device was lost before the bytes came")),
        }
    }
}

pub(super) type Staging = Arc<StagingPool>;
