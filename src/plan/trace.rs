//! Looking into a plan: the GPU time of each step, and the tensors that a step wrote.

use super::Plan;
use crate::error::{Error, Result};
use crate::gpu::Buffer;
use crate::gpu::timing::Timestamps;
use crate::tensor::{Storage, Tensor};

/// A step's label and its time on the GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// Such as `matvec/blk.3/ffn_down`.
    pub label: String,
    /// Milliseconds between the begin and the end of its pass.
    pub gpu_ms: f64,
}

/// What a step has to do at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepWork {
    /// Such as `matvec/blk.3/ffn_down`.
    pub label: String,
    /// Bytes of all tensors that it binds.
    pub bound_bytes: u64,
    /// Multiplications and additions, for matrix products; 0 for others.
    pub operations: u64,
}

impl Plan {
    /// What each step has to do.
    pub fn work(&self) -> Vec<StepWork> {
        let work = |step: &super::Step| {
            let bindings = step.kernel.bindings();
            let bound_bytes = bindings.iter().map(|binding| binding.tensor.bytes()).sum();
            // Products bind the weight first and write the result.
            let result = bindings.iter().find(|binding| binding.access == crate::gpu::Access::Write);
            let operations = match (step.kernel.name(), bindings.first(), result) {
                ("matmul" | "matmul_best" | "matmul_swiglu" | "matvec", Some(w), Some(y)) => {
                    2 * w.tensor.len() as u64 * y.tensor.rows() as u64
                }
                _ => 0,
            };
            StepWork { label: step.label.clone(), bound_bytes, operations }
        };
        self.steps.iter().map(work).collect()
    }

    /// Replays the plan with every step in a pass of its own and returns the steps' GPU times.
    ///
    /// # Errors
    /// `Unsupported` where the device has no timestamps.
    pub async fn time_steps(&self, context: usize) -> Result<Vec<StepTime>> {
        let mut times = Vec::with_capacity(self.steps.len());
        // A query set holds 4096 queries, two a pass.
        for steps in self.steps.chunks(2048) {
            let mut timestamps = Timestamps::new(&self.context, steps.len() as u32)?;
            let mut encoder = self.context.encoder();
            for step in steps {
                let timestamp_writes = timestamps.next();
                let descriptor = wgpu::ComputePassDescriptor { label: Some(&step.label), timestamp_writes };
                self.encode(&mut encoder.begin_compute_pass(&descriptor), step, context);
            }
            let milliseconds = timestamps.submit(encoder).await?;
            times.extend(
                steps.iter().zip(milliseconds).map(|(step, gpu_ms)| StepTime { label: step.label.clone(), gpu_ms }),
            );
        }
        Ok(times)
    }

    /// GPU milliseconds of one replay in one pass.
    ///
    /// # Errors
    /// `Unsupported` where the device has no timestamps.
    pub async fn time(&self, context: usize) -> Result<f64> {
        let mut timestamps = Timestamps::new(&self.context, 1)?;
        let mut encoder = self.context.encoder();
        {
            let timestamp_writes = timestamps.next();
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            for step in &self.steps {
                self.encode(&mut pass, step, context);
            }
        }
        Ok(timestamps.submit(encoder).await?.first().copied().unwrap_or(0.0))
    }

    /// Replays the steps up to and with the last whose label contains `step`, and returns the bytes of the tensors that
    /// it wrote.
    ///
    /// # Errors
    /// `Shape` where no step has such a label.
    pub async fn dump(&self, step: &str, context: usize) -> Result<Vec<(Tensor, Vec<u8>)>> {
        let index = self
            .steps
            .iter()
            .rposition(|candidate| candidate.label.contains(step))
            .ok_or_else(|| Error::shape(format!("step {step:?}: not found among {} steps", self.steps.len())))?;
        let mut encoder = self.context.encoder();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for step in &self.steps[..=index] {
                self.encode(&mut pass, step, context);
            }
        }
        self.context.submit(encoder);
        let mut written = Vec::new();
        for binding in self.steps[index].kernel.bindings() {
            if binding.access == crate::gpu::Access::Write {
                let bytes = self.read(&binding.tensor).await?;
                written.push((binding.tensor, bytes));
            }
        }
        Ok(written)
    }

    pub(super) fn buffer<'a>(&'a self, tensor: &'a Tensor) -> Result<&'a Buffer> {
        let buffer = match tensor.storage() {
            Storage::Buffer(buffer) => Some(buffer),
            Storage::Activation(id) => self.activations.buffer(*id),
        };
        buffer.ok_or_else(|| Error::shape("activation: not found in this plan"))
    }

    /// The bytes of a tensor of this plan as the last replay left them; an activation must have been kept.
    ///
    /// # Errors
    /// `Shape` where the tensor is not of this plan.
    pub async fn read(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        let buffer = self.buffer(tensor)?;
        self.context.read(buffer, tensor.offset(), tensor.bytes()).await
    }
}
