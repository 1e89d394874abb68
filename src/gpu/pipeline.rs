//! Compute pipelines: a rendered spec, compiled, with an explicit layout.

use super::context::Context;
use crate::error::Result;
use crate::shader::{PARAMS, Spec};

/// How a shader uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`; what is compiled of [`Spec::inputs_writable`] has `read_write`.
    Read,
    /// `var<storage, read_write>`, also for outputs that are only written: WGSL has no write-only storage.
    Write,
}

/// A shader that a plan needs and that has not been compiled. A caller that can compile several at once, as browsers do,
/// does so before the plan is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncompiled {
    /// The kernel's name.
    pub kernel: &'static str,
    /// WGSL.
    pub source: String,
    /// How it uses its tensors, in their order.
    pub accesses: Vec<Access>,
}

/// A compiled shader and the layout of its only group: tensors from index 0 on, parameters at 15.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

impl Pipeline {
    pub(super) fn compile(context: &Context, spec: &Spec, accesses: &[Access]) -> Result<Self> {
        let device = context.device();
        let name = spec.kernel();
        let writable = spec.has_inputs_writable();
        let source = spec.render_to_compile()?;
        context.check()?;
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(source.into()) };
        let module = if spec.is_trusted() {
            // SAFETY: a trusted spec is one whose kernel the test harness runs over its classes of shapes, with guard zones around
            // what it writes; its loops have bounds from the shapes that `check` accepts. wgpu asks drivers that can to keep
            // accesses within buffers, so that a kernel that read past one would read zeros or what lies in it.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        } else {
            device.create_shader_module(descriptor)
        };
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let tensors = accesses.iter().zip(0..).map(|(access, binding)| {
            entry(binding, wgpu::BufferBindingType::Storage { read_only: *access == Access::Read && !writable })
        });
        let entries: Vec<_> = tensors.chain([entry(PARAMS, wgpu::BufferBindingType::Uniform)]).collect();
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                // Every kernel writes its workgroup memory before it reads it; the harness would see it otherwise.
                zero_initialize_workgroup_memory: !spec.is_trusted(),
            },
            cache: context.pipeline_cache(),
        });
        context.check().map_err(|error| error.context(format!("kernel {name}")))?;
        Ok(Self { raw, layout })
    }
}
