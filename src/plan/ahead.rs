//! Replays that are read: recorded while the device still works on the one before, so that the next is submitted as soon as its
//! input is written. Encoding 44 steps takes a host a quarter of a millisecond, as long as a device may take for them.

use super::Plan;
use crate::error::Result;
use crate::gpu::Buffer;
use crate::gpu::context::lock;
use crate::gpu::readback::{Pending, Readback};
use crate::tensor::Tensor;

/// Steps that the device begins with while the host encodes the others, where none are recorded.
const EARLY: usize = 8;

/// A replay and the copy behind it, not submitted yet.
#[derive(Debug)]
pub(super) struct Ahead {
    what: What,
    commands: wgpu::CommandBuffer,
    readback: Readback,
}

/// What of a replay can differ from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct What {
    context: usize,
    /// The buffer's id.
    buffer: u64,
    offset: u64,
    bytes: u64,
}

impl Plan {
    /// Replays the plan once and copies a kept tensor right behind it, to be waited for later: replays that follow may
    /// overwrite it.
    ///
    /// # Errors
    /// `Shape` where the tensor is not of this plan.
    pub(crate) fn replay_and_read(&self, context: usize, tensor: &Tensor) -> Result<Pending> {
        let buffer = self.buffer(tensor)?;
        let what = What { context, buffer: buffer.id(), offset: tensor.offset(), bytes: tensor.bytes() };
        let recorded = lock(&self.ahead).take().filter(|ahead| ahead.what == what);
        let Ahead { commands, readback, .. } = recorded.unwrap_or_else(|| {
            let (first, rest) = self.steps.split_at(if self.steps.len() > 2 * EARLY { EARLY } else { 0 });
            if !first.is_empty() {
                self.submit(first, context);
            }
            self.record_ahead(rest, what, buffer)
        });
        let pending = readback.submitted(self.context.submit_recorded(commands));
        *lock(&self.ahead) = Some(self.record_ahead(&self.steps, what, buffer));
        Ok(pending)
    }

    fn record_ahead(&self, steps: &[super::Step], what: What, buffer: &Buffer) -> Ahead {
        let mut encoder = self.context.encoder();
        self.record(&mut encoder, steps, what.context);
        let readback = self.context.record_read(&mut encoder, buffer, what.offset, what.bytes);
        Ahead { what, commands: encoder.finish(), readback }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::gpu::{Adapter, Context};
    use crate::kernels::copy::Copy;
    use crate::models::weights::upload_floats;
    use crate::plan::Builder;
    use crate::tensor::Storage;

    /// Replays give what was last written, whether they were recorded before or not: of the same part, of another one, twice under
    /// way at once.
    #[test]
    fn recorded_replays_are_as_others() {
        pollster::block_on(async {
            let context = Context::open(&Adapter::request(&Default::default()).await.unwrap(), None).await.unwrap();
            let x = upload_floats(&context, "x", &[0.0; 64], [4, 16]).unwrap();
            let mut builder = Builder::new(&context);
            let y = builder.activation(DType::F32, [4, 16]);
            builder.step("copy", Copy { x: x.clone(), y: y.clone() }).unwrap();
            builder.keep(&y);
            let plan = builder.finish().unwrap();
            let submit = |value: f32, tensor: &Tensor| {
                let Storage::Buffer(buffer) = x.storage() else { panic!("a buffer") };
                context.write(buffer, 0, bytemuck::cast_slice(&[value; 64]));
                plan.replay_and_read(0, tensor).unwrap()
            };
            let two = y.slice(0, 2).unwrap();
            for (value, tensor) in [(1.0, &y), (2.0, &y), (3.0, &two), (4.0, &y), (5.0, &y)] {
                let bytes = submit(value, tensor).bytes().await.unwrap();
                assert_eq!(bytemuck::pod_collect_to_vec::<_, f32>(&bytes), vec![value; tensor.len()], "{value}");
            }
            let (first, second) = (submit(6.0, &y), submit(7.0, &y));
            let second: Vec<f32> = bytemuck::pod_collect_to_vec(&second.bytes().await.unwrap());
            let first: Vec<f32> = bytemuck::pod_collect_to_vec(&first.bytes().await.unwrap());
            assert_eq!((first, second), (vec![6.0; 64], vec![7.0; 64]));
        });
    }
}
