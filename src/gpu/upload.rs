//! Rows on their way to the GPU. Natively through mapped buffers that are used again: the queue's own writes allocate their
//! staging memory anew each time, which takes longer than filling it. In a browser through those writes, which is what it has.

use std::ops::Range;

use super::buffer::Buffer;
use super::context::Context;
use crate::error::Result;

/// Where a range of rows goes: to a byte of a buffer, a multiple of 4.
pub(crate) struct Destination<'a> {
    pub rows: Range<usize>,
    pub buffer: &'a Buffer,
    pub offset: u64,
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use mapped::Uploader;
#[cfg(target_arch = "wasm32")]
pub(crate) use queued::Uploader;

#[cfg(not(target_arch = "wasm32"))]
mod mapped {
    use std::collections::VecDeque;
    use std::ops::Range;

    use futures_channel::oneshot;

    use super::{Context, Destination, Result};
    use crate::error::Error;
    use crate::gpu::context::Wait;

    /// Buffers under way at once: one is filled while others are copied.
    const BUFFERS: usize = 4;
    /// Bytes of the smallest buffer, so that small matrices share a size.
    const SMALLEST: usize = 1 << 20;
    /// Bytes that are worth a thread's start.
    const BYTES_PER_THREAD: usize = 64 << 10;

    /// Mapped buffers, filled by all cores.
    pub(crate) struct Uploader {
        context: Context,
        busy: VecDeque<(wgpu::Buffer, oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>)>,
    }

    impl Uploader {
        /// No buffer yet.
        pub fn new(context: &Context) -> Self {
            Self { context: context.clone(), busy: VecDeque::new() }
        }

        /// A mapped buffer: a new one, or the one that was copied from first, once the GPU is done with it.
        async fn take(&mut self, bytes: u64) -> Result<wgpu::Buffer> {
            if self.busy.len() >= BUFFERS
                && let Some((staging, mapped)) = self.busy.pop_front()
            {
                let mapped = mapped.await;
                self.context.check()?;
                if !matches!(mapped, Ok(Ok(()))) {
                    return Err(Error::device_lost(
                        "an upload failed: the device was lost before the GPU took its bytes",
                    ));
                }
                if staging.size() >= bytes {
                    return Ok(staging);
                }
            }
            let staging = self.context.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("upload"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            });
            self.context.check()?;
            Ok(staging)
        }

        /// Sends `count` rows of `row_bytes`, a multiple of 4, before whatever is submitted next. `row(i, out)` writes row i; it
        /// is called from several threads.
        ///
        /// # Errors
        /// What `row` gives, or what the device reported.
        pub async fn write(
            &mut self,
            count: usize,
            row_bytes: usize,
            row: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
            to: &[Destination<'_>],
        ) -> Result<()> {
            let bytes = count * row_bytes;
            let staging = self.take(bytes.next_power_of_two().max(SMALLEST) as u64).await?;
            let mapped = |error| Error::adapter(format!("upload of {bytes} bytes: {error}"));
            {
                let mut view = staging.get_mapped_range_mut(..bytes as u64).map_err(mapped)?;
                fill(view.slice(..), count, row_bytes, &row)?;
            }
            staging.unmap();
            let mut encoder = self.context.encoder();
            for Destination { rows, buffer, offset } in to {
                let (from, len) = ((rows.start * row_bytes) as u64, (rows.len() * row_bytes) as u64);
                encoder.copy_buffer_to_buffer(&staging, from, buffer.raw(), *offset, len);
            }
            let submission = self.context.submit(encoder);
            let (sender, mapped) = oneshot::channel();
            staging.map_async(wgpu::MapMode::Write, .., move |result| {
                // Nobody waits any more where the loader is gone.
                let _ = sender.send(result);
            });
            self.context.wake_poller(submission, Wait::Asleep);
            self.busy.push_back((staging, mapped));
            Ok(())
        }
    }

    /// A piece of a mapped buffer, for one thread.
    struct Piece<'a>(wgpu::WriteOnly<'a, [u8]>);

    // SAFETY: a `WriteOnly` gives nobody but its holder access to its bytes, and bytes may be sent; wgpu 30 says so of sized
    // types only.
    unsafe impl Send for Piece<'_> {}

    type Row<'a> = &'a (dyn Fn(usize, &mut [u8]) -> Result<()> + Sync);

    /// Writes rows one behind the other, on all cores.
    fn fill(mut out: wgpu::WriteOnly<'_, [u8]>, count: usize, row_bytes: usize, row: Row) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let share = count.div_ceil(cores).max(BYTES_PER_THREAD / row_bytes.max(1)).max(1);
        if share >= count {
            return fill_range(Piece(out), 0..count, row_bytes, row);
        }
        std::thread::scope(|scope| {
            let mut workers = Vec::with_capacity(cores);
            for first in (0..count).step_by(share) {
                let rows = first..(first + share).min(count);
                let (own, rest) = out.split_at(rows.len() * row_bytes);
                out = rest;
                let own = Piece(own);
                workers.push(scope.spawn(move || fill_range(own, rows, row_bytes, row)));
            }
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(Error::io("a thread that fills an upload panicked")))
            })
        })
    }

    /// Mapped memory may be slow to write in small pieces: rows are made elsewhere and copied whole.
    fn fill_range(Piece(mut out): Piece<'_>, rows: Range<usize>, row_bytes: usize, row: Row) -> Result<()> {
        let mut made = vec![0; row_bytes];
        for i in rows {
            row(i, &mut made)?;
            let mut place;
            (place, out) = out.split_at(row_bytes);
            place.copy_from_slice(&made);
        }
        Ok(())
    }
}

#[cfg(target_arch = "wasm32")]
mod queued {
    use super::{Context, Destination, Result};

    /// Bytes written before the queue is waited for: what is in flight is memory that only loading needs.
    const IN_FLIGHT_BYTES: usize = 64 << 20;

    /// Rows gathered in memory, then written by the queue.
    pub(crate) struct Uploader {
        context: Context,
        packed: Vec<u8>,
        in_flight: usize,
    }

    impl Uploader {
        /// Nothing gathered yet.
        pub fn new(context: &Context) -> Self {
            Self { context: context.clone(), packed: Vec::new(), in_flight: 0 }
        }

        /// Sends `count` rows of `row_bytes`, a multiple of 4, before whatever is submitted next. `row(i, out)` writes row i.
        ///
        /// # Errors
        /// What `row` gives, or what the device reported.
        pub async fn write(
            &mut self,
            count: usize,
            row_bytes: usize,
            row: impl Fn(usize, &mut [u8]) -> Result<()>,
            to: &[Destination<'_>],
        ) -> Result<()> {
            self.packed.resize(count * row_bytes, 0);
            self.packed.chunks_exact_mut(row_bytes).enumerate().try_for_each(|(i, out)| row(i, out))?;
            for Destination { rows, buffer, offset } in to {
                let bytes = &self.packed[rows.start * row_bytes..rows.end * row_bytes];
                self.context.write(buffer, *offset, bytes);
            }
            self.in_flight += self.packed.len();
            if self.in_flight > IN_FLIGHT_BYTES {
                self.context.finish().await?;
                self.in_flight = 0;
            }
            Ok(())
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::gpu::Adapter;

    #[test]
    fn rows_arrive_where_they_belong() {
        pollster::block_on(async {
            let adapter = Adapter::request(&Default::default()).await.unwrap();
            let context = Context::open(&adapter, None).await.unwrap();
            let [a, b] = ["a", "b"].map(|label| context.buffer(label, 3 << 20).unwrap());
            let mut uploader = Uploader::new(&context);
            // More writes than buffers, of rows enough for several threads; the last is larger than the buffers before it.
            let counts = [300, 1, 300, 256, 300, 300, 1500];
            let row = |write: usize| {
                move |i: usize, out: &mut [u8]| {
                    out.fill((write * 31 + i * 7) as u8);
                    Ok(())
                }
            };
            for (write, count) in counts.into_iter().enumerate() {
                let half = count / 2;
                let to = [
                    Destination { rows: 0..half, buffer: &a, offset: 1024 },
                    Destination { rows: half..count, buffer: &b, offset: 0 },
                ];
                uploader.write(count, 1024, row(write), &to).await.unwrap();
                let found = [
                    context.read(&a, 1024, (half * 1024).max(4) as u64).await.unwrap(),
                    context.read(&b, 0, ((count - half) * 1024) as u64).await.unwrap(),
                ];
                let expected: Vec<u8> = (0..count).flat_map(|i| [(write * 31 + i * 7) as u8; 1024]).collect();
                assert!(half == 0 || found[0] == expected[..half * 1024], "write {write}, first rows");
                assert!(found[1] == expected[half * 1024..], "write {write}, last rows");
            }
            let refused = uploader.write(1, 4, |_, _| Err(Error::format("row 0 is short")), &[]).await.unwrap_err();
            assert!(refused.to_string().contains("row 0 is short"), "{refused}");
        });
    }
}
