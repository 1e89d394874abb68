//! Replays that are read: their steps are recorded while the device still works on the replay before, so that they are submitted as
//! soon as their input is written. Encoding an encoder's 45 steps takes a host a quarter of a millisecond, as long as a device may
//! take for them.

use super::Plan;
use crate::error::Result;
use crate::gpu::context::lock;
use crate::gpu::readback::Pending;
use crate::tensor::Tensor;

/// Steps that the device begins with while the host encodes the others, where none are recorded.
const EARLY: usize = 8;

/// The steps of a replay, not submitted yet.
#[derive(Debug)]
pub(super) struct Ahead {
    context: usize,
    commands: wgpu::CommandBuffer,
}

impl Plan {
    /// Replays the plan once and copies a kept tensor right behind it, to be waited for later: replays that follow may
    /// overwrite it.
    ///
    /// # Errors
    /// `Shape` where the tensor is not of this plan.
    pub(crate) fn replay_and_read(&self, context: usize, tensor: &Tensor) -> Result<Pending> {
        let buffer = self.buffer(tensor)?;
        let recorded = lock(&self.ahead).take().filter(|ahead| ahead.context == context);
        let steps = recorded.map_or_else(
            || {
                let (first, rest) = self.steps.split_at(if self.steps.len() > 2 * EARLY { EARLY } else { 0 });
                if !first.is_empty() {
                    self.submit(first, context);
                }
                self.recorded(rest, context)
            },
            |ahead| ahead.commands,
        );
        let mut encoder = self.context.encoder();
        let readback = self.context.record_read(&mut encoder, buffer, tensor.offset(), tensor.bytes());
        let pending = readback.submitted_awake(self.context.submit_recorded([steps, encoder.finish()]));
        *lock(&self.ahead) = Some(Ahead { context, commands: self.recorded(&self.steps, context) });
        Ok(pending)
    }

    fn recorded(&self, steps: &[super::Step], context: usize) -> wgpu::CommandBuffer {
        let mut encoder = self.context.encoder();
        self.record(&mut encoder, steps, context);
        encoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::error::ErrorKind;
    use crate::gpu::{Adapter, Context};
    use crate::kernels::copy::Copy;
    use crate::models::weights::upload_floats;
    use crate::plan::Builder;
    use crate::tensor::Storage;

    /// Replays give what was last written, whether their steps were recorded before or not: of the same part, of another one,
    /// of another context, two under way at once; and what is recorded is used.
    #[test]
    fn recorded_replays_are_as_others() {
        pollster::block_on(async {
            let context = Context::open(&Adapter::request(&Default::default()).await.unwrap(), None).await.unwrap();
            let x = upload_floats(&context, "x", &[0.0; 64], [4, 16]).unwrap();
            let mut builder = Builder::new(&context);
            let mut y = x.clone();
            for _ in 0..=2 * EARLY {
                let next = builder.activation(DType::F32, [4, 16]);
                builder.step("copy", Copy { x: y, y: next.clone() }).unwrap();
                y = next;
            }
            builder.keep(&y);
            let plan = builder.finish().unwrap();
            let submit = |value: f32, context_size: usize, tensor: &Tensor| {
                let Storage::Buffer(buffer) = x.storage() else { panic!("a buffer") };
                context.write(buffer, 0, bytemuck::cast_slice(&[value; 64]));
                plan.replay_and_read(context_size, tensor).unwrap()
            };
            let two = y.slice(0, 2).unwrap();
            assert!(lock(&plan.ahead).is_none());
            for (value, context_size, tensor) in
                [(1.0, 0, &y), (2.0, 0, &y), (3.0, 0, &two), (4.0, 1, &y), (5.0, 1, &y)]
            {
                let bytes = submit(value, context_size, tensor).bytes().await.unwrap();
                assert_eq!(bytemuck::pod_collect_to_vec::<_, f32>(&bytes), vec![value; tensor.len()], "{value}");
                assert_eq!(lock(&plan.ahead).as_ref().unwrap().context, context_size);
            }
            let (first, second) = (submit(6.0, 1, &y), submit(7.0, 1, &y));
            let second: Vec<f32> = bytemuck::pod_collect_to_vec(&second.bytes().await.unwrap());
            let first: Vec<f32> = bytemuck::pod_collect_to_vec(&first.bytes().await.unwrap());
            assert_eq!((first, second), (vec![6.0; 64], vec![7.0; 64]));
            // Were what is recorded not used, this would not be seen.
            let Storage::Buffer(buffer) = x.storage() else { panic!("a buffer") };
            context.write(buffer, 0, bytemuck::cast_slice(&[8.0f32; 64]));
            *lock(&plan.ahead) = Some(Ahead { context: 1, commands: context.encoder().finish() });
            let stale: Vec<f32> =
                bytemuck::pod_collect_to_vec(&plan.replay_and_read(1, &y).unwrap().bytes().await.unwrap());
            assert_eq!(stale, [7.0; 64]);
            context.lose();
            let lost = plan.replay_and_read(1, &y).unwrap().bytes().await.unwrap_err();
            assert_eq!(lost.kind(), ErrorKind::DeviceLost);
        });
    }
}
