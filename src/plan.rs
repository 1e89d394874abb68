//! [`Plan`]: dispatches written once, replayed for every token. Pipelines, bind groups and parameters are ready, so a
//! replay only encodes them into one compute pass.
//!
//! ```
//! # pollster::block_on(async {
//! use anygpu::gpu::{Adapter, Context};
//! use anygpu::kernels::copy::Copy;
//! use anygpu::plan::Builder;
//! use anygpu::tensor::{Storage, Tensor};
//! use anygpu::DType;
//!
//! let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
//! let input = context.buffer_from("input", bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0]))?;
//! let x = Tensor::new(Storage::Buffer(input), 0, DType::F32, [4]);
//!
//! let mut builder = Builder::new(&context);
//! let y = builder.activation(DType::F32, [4]);
//! builder.step("example", Copy { x, y: y.clone() })?;
//! builder.keep(&y);
//! let plan = builder.finish()?;
//! plan.replay(0);
//! assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&plan.read(&y).await?), [1.0, 2.0, 3.0, 4.0]);
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

mod ahead;
pub mod builder;
pub mod memory;
pub mod trace;

use std::sync::{Arc, Mutex};

use crate::gpu::{Buffer, Context, Pipeline};
use crate::kernels::Kernel;
use crate::profile::Profile;

pub use builder::Builder;

/// One dispatch of a plan.
#[derive(Debug)]
pub(crate) struct Step {
    label: String,
    kernel: Box<dyn Kernel>,
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
}

/// A list of steps, ready to be replayed on the context it was built for.
#[derive(Debug)]
pub struct Plan {
    context: Context,
    profile: Profile,
    steps: Vec<Step>,
    /// The buffers that hold the activations, by colour, and each activation's place.
    activations: memory::Places,
    /// Held so that the memory counts as long as the plan lives.
    _params: Buffer,
    /// The next replay that is read, where there was one.
    ahead: Mutex<Option<ahead::Ahead>>,
}

impl Plan {
    /// Encodes steps into one compute pass. `context` is an upper bound of the positions attended to.
    fn record(&self, encoder: &mut wgpu::CommandEncoder, steps: &[Step], context: usize) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for step in steps {
            self.encode(&mut pass, step, context);
        }
    }

    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, step: &Step, context: usize) {
        let [x, y, z] = step.kernel.grid(&self.profile, context);
        pass.set_pipeline(&step.pipeline.raw);
        pass.set_bind_group(0, &step.group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// Replays the plan once: submits it without waiting.
    pub fn replay(&self, context: usize) {
        self.submit(&self.steps, context);
    }

    /// [`Self::replay`] for a plan that the device has nothing to do before: it begins with the first steps while the host
    /// still encodes the others, which takes about 10 µs each. After `first` steps four times as many are submitted, and so on, but
    /// no more than `most` at once: systems reset a device that a single submission keeps for seconds.
    pub(crate) fn replay_early(&self, context: usize, first: usize, most: usize) {
        let (mut left, mut count) = (self.steps.as_slice(), first);
        while !left.is_empty() {
            let (now, later) = left.split_at(count.clamp(1, most).min(left.len()));
            self.submit(now, context);
            (left, count) = (later, count.saturating_mul(4));
        }
    }

    /// Encodes a replay, to be submitted with what else the caller puts into the encoder.
    pub(crate) fn encode_all(&self, encoder: &mut wgpu::CommandEncoder, context: usize) {
        self.record(encoder, &self.steps, context);
    }

    fn submit(&self, steps: &[Step], context: usize) {
        let mut encoder = self.context.encoder();
        self.record(&mut encoder, steps, context);
        self.context.submit(encoder);
    }

    /// The labels of the steps, such as `matvec/blk.3/ffn_down`.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.steps.iter().map(|step| step.label.as_str())
    }

    /// Bytes of the buffers that hold the activations, those included that other plans share.
    pub fn activation_bytes(&self) -> u64 {
        self.activations.bytes()
    }
}
