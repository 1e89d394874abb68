//! [`Builder`]: models write their steps through it.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::memory::{Life, Places, Scratch};
use super::{Plan, Step};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::pipeline::Uncompiled;
use crate::gpu::{Access, Context};
use crate::kernels::Kernel;
use crate::profile::Profile;
use crate::shader::PARAMS;
use crate::tensor::{Storage, Tensor};

struct Written {
    label: String,
    kernel: Box<dyn Kernel>,
}

/// Collects steps and activations; [`Builder::finish`] allocates, compiles and binds.
pub struct Builder {
    context: Context,
    /// What kernels are chosen for: the device's profile, or less.
    profile: Profile,
    steps: Vec<Written>,
    lives: Vec<Life>,
    /// Where activations lie that do not outlive a replay; `None`: in the plan's own buffers.
    scratch: Option<Scratch>,
}

/// How a kernel uses its bindings.
fn accesses(kernel: &dyn Kernel) -> Vec<Access> {
    kernel.bindings().iter().map(|binding| binding.access).collect()
}

impl Builder {
    /// An empty plan for a context.
    pub fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            profile: context.profile().clone(),
            steps: Vec::new(),
            lives: Vec::new(),
            scratch: None,
        }
    }

    /// A plan that is written but not finished, for a device that is not there.
    #[cfg(test)]
    pub(crate) fn for_profile(context: &Context, profile: &Profile) -> Self {
        Self { profile: profile.clone(), ..Self::new(context) }
    }

    /// The steps so far.
    #[cfg(test)]
    pub(crate) fn labels(&self) -> Vec<String> {
        self.steps.iter().map(|step| step.label.clone()).collect()
    }

    /// Bytes of the activations from the `first`-th on, those that share a buffer counted once.
    #[cfg(test)]
    pub(crate) fn activation_bytes(&self, first: usize) -> u64 {
        super::memory::colour(&self.lives[first..]).1.iter().sum()
    }

    /// How many activations there are.
    #[cfg(test)]
    pub(crate) fn activations(&self) -> usize {
        self.lives.len()
    }

    /// Chooses kernels as for a device that has no more than `profile`: the plain path beside the fast one, on the same
    /// weights.
    #[must_use]
    pub fn clipped(mut self, profile: &Profile) -> Self {
        self.profile = self.profile.clip(profile);
        self
    }

    /// Keeps what no replay leaves behind in buffers that other plans of this context use as well.
    #[must_use]
    pub fn sharing(mut self, scratch: &Scratch) -> Self {
        self.scratch = Some(scratch.clone());
        self
    }

    /// What the plan is for.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// What the device can do.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// A new activation of 32-bit elements. It lives from the first to the last step that mentions it.
    pub fn activation(&mut self, dtype: DType, shape: impl Into<Vec<usize>>) -> Tensor {
        let tensor = Tensor::new(Storage::Activation(self.lives.len() as u32), 0, dtype, shape);
        self.lives.push(Life { bytes: tensor.bytes().next_multiple_of(16), first: usize::MAX, last: 0 });
        tensor
    }

    /// Appends a step.
    ///
    /// # Errors
    /// `Shape` where the kernel's arguments do not fit, or where the grid is beyond the device's limits.
    pub fn step(&mut self, label: impl Into<String>, kernel: impl Kernel + 'static) -> Result<()> {
        let label = format!("{}/{}", kernel.name(), label.into());
        kernel.check().map_err(|error| error.context(&label))?;
        if !kernel.runs_on(&self.profile) {
            return Err(Error::unsupported(format!("{label}: the device {} cannot run it", self.profile.name)));
        }
        let index = self.steps.len();
        for binding in kernel.bindings() {
            if let Storage::Activation(id) = binding.tensor.storage() {
                let life = &mut self.lives[*id as usize];
                life.first = life.first.min(index);
                life.last = life.last.max(index);
            }
        }
        self.steps.push(Written { label, kernel: Box::new(kernel) });
        Ok(())
    }

    /// Lets an activation live to the end of the plan, so that it can be read after a replay.
    pub fn keep(&mut self, tensor: &Tensor) {
        if let Storage::Activation(id) = tensor.storage() {
            self.lives[*id as usize].last = usize::MAX;
        }
    }

    /// The shaders of the steps so far that the device has not compiled yet, each once.
    ///
    /// # Errors
    /// `Unsupported` where a shader cannot be written.
    pub fn uncompiled(&self) -> Result<Vec<Uncompiled>> {
        let mut seen = HashSet::new();
        let mut uncompiled = Vec::new();
        for Written { kernel, .. } in &self.steps {
            let (spec, accesses) = (kernel.spec(&self.profile), accesses(kernel.as_ref()));
            if !self.context.has_pipeline(&spec, &accesses) && seen.insert((spec.clone(), accesses.clone())) {
                uncompiled.push(Uncompiled { kernel: spec.kernel(), source: spec.render()?, accesses });
            }
        }
        Ok(uncompiled)
    }

    /// Allocates activations, compiles pipelines and makes bind groups.
    ///
    /// # Errors
    /// `OutOfMemory` where activations do not fit, `Adapter` where a shader is refused, `Shape` where a binding is larger
    /// than the device binds.
    pub fn finish(self) -> Result<Plan> {
        let Self { context, profile, steps, lives, scratch } = self;
        let mut seen = HashSet::new();
        let mut wanted = Vec::new();
        for Written { label, kernel } in &steps {
            let (spec, accesses) = (kernel.spec(&profile), accesses(kernel.as_ref()));
            if !context.has_pipeline(&spec, &accesses) && seen.insert((spec.clone(), accesses.clone())) {
                wanted.push((label.clone(), spec, accesses));
            }
        }
        context.compile(&wanted)?;
        let activations = Places::allocate(&context, &lives, scratch.as_ref())?;
        let device = context.device();
        let align = context.profile().limits.min_uniform_offset_alignment.max(16) as usize;
        let mut params = Vec::new();
        let mut offsets = HashMap::new();
        let mut placed = Vec::with_capacity(steps.len());
        let mut longest = 16;
        for step in &steps {
            let bytes = step.kernel.params().bytes;
            longest = longest.max(bytes.len());
            // Layers repeat their parameters; one copy serves them all.
            let offset = *offsets.entry(bytes).or_insert_with_key(|bytes| {
                let offset = params.len();
                params.extend_from_slice(bytes);
                params.resize(params.len().next_multiple_of(align), 0);
                offset
            });
            placed.push(offset as u32);
        }
        let longest = longest.next_multiple_of(16);
        params.resize(params.len() + longest, 0);
        let params_buffer = context.buffer_with("params", params.len() as u64, wgpu::BufferUsages::UNIFORM)?;
        context.write(&params_buffer, 0, &params);
        let params = |offset: u32| wgpu::BindGroupEntry {
            binding: PARAMS,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: params_buffer.raw(),
                offset: offset.into(),
                size: wgpu::BufferSize::new(longest as u64),
            }),
        };
        let mut bound = Vec::with_capacity(steps.len());
        for (Written { label, kernel }, params_offset) in steps.into_iter().zip(placed) {
            let bindings = kernel.bindings();
            let pipeline = context
                .pipeline(&kernel.spec(&profile), &accesses(kernel.as_ref()))
                .map_err(|error| error.context(&label))?;
            let limit = context.profile().limits.max_binding_bytes;
            let mut entries = Vec::with_capacity(bindings.len() + 1);
            for (binding, index) in bindings.iter().zip(0..) {
                let tensor = &binding.tensor;
                let buffer = match tensor.storage() {
                    Storage::Buffer(buffer) => Some(buffer),
                    Storage::Activation(id) => activations.buffer(*id),
                };
                let bytes = tensor.bytes().next_multiple_of(16);
                let fits = |b: &&crate::gpu::Buffer| bytes <= limit && tensor.offset() + bytes <= b.bytes();
                let buffer = buffer.filter(fits).ok_or_else(|| {
                    Error::shape(format!("{label}: binding {index} of {bytes} bytes, expected at most {limit}"))
                })?;
                entries.push(wgpu::BindGroupEntry {
                    binding: index,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: buffer.raw(),
                        offset: tensor.offset(),
                        size: wgpu::BufferSize::new(bytes),
                    }),
                });
            }
            entries.push(params(params_offset));
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&label),
                layout: &pipeline.layout,
                entries: &entries,
            });
            bound.push(Step { label, kernel, pipeline, group });
        }
        context.check()?;
        Ok(Plan { context, profile, steps: bound, activations, _params: params_buffer, ahead: Mutex::default() })
    }
}
