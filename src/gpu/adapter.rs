//! Adapters: finding one, and describing it as a [`Profile`].

use crate::error::{Error, Result};
use crate::profile::{Backend, CooperativeMatrix, Element, Features, Limits, Profile, Subgroup};

/// Which adapter to open.
#[derive(Clone, Debug, Default)]
pub struct AdapterOptions {
    /// Part of the adapter's name, in any case. Without it the fastest kind there is: discrete, integrated, virtual, CPU.
    pub name: Option<String>,
    /// Whether the device computes dot products of packed 8-bit integers; wgpu does not announce it. `None`: yes
    /// natively, where naga emulates what the driver lacks, but on Metal, which has no instruction for it; no in browsers.
    pub integer_dot: Option<bool>,
    /// Whether the browser was made to grant subgroups, which wgpu cannot request there.
    pub browser_subgroups: bool,
    /// What to call an adapter whose browser keeps its description to itself.
    pub browser_name: Option<String>,
}

/// An adapter that a device can be opened on.
#[derive(Clone, Debug)]
pub struct Adapter {
    #[cfg(feature = "burn-inference")]
    pub(crate) instance: wgpu::Instance,
    pub(crate) raw: wgpu::Adapter,
    profile: Profile,
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    // Debug builds of wgpu would switch on Vulkan's validation layers, which need not be installed.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    wgpu::Instance::new(descriptor)
}

/// All adapters, the ones to prefer first.
///
/// # Examples
/// ```
/// for adapter in pollster::block_on(anygpu::gpu::adapter::all(&Default::default())) {
///     println!("{}", adapter.profile().name);
/// }
/// ```
pub async fn all(options: &AdapterOptions) -> Vec<Adapter> {
    let instance = instance();
    #[cfg(not(target_arch = "wasm32"))]
    let found = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
    #[cfg(target_arch = "wasm32")]
    let found: Vec<_> = instance
        .request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        })
        .await
        .into_iter()
        .collect();
    let mut adapters: Vec<Adapter> = found
        .into_iter()
        .filter(|raw| raw.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS))
        .map(|raw| {
            let profile = describe(&raw, options);
            Adapter {
                #[cfg(feature = "burn-inference")]
                instance: instance.clone(),
                raw,
                profile,
            }
        })
        .collect();
    adapters.sort_by_key(|adapter| match adapter.raw.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

impl Adapter {
    /// The adapter that `options` name, or the one to prefer.
    ///
    /// # Errors
    /// `Adapter` where there is none, or none of that name; the message lists those there are.
    pub async fn request(options: &AdapterOptions) -> Result<Self> {
        let mut adapters = all(options).await;
        let wanted = options.name.as_deref().unwrap_or("").to_lowercase();
        let found = adapters.iter().position(|adapter| adapter.profile.name.to_lowercase().contains(&wanted));
        match found {
            Some(index) => Ok(adapters.swap_remove(index)),
            None if adapters.is_empty() => Err(Error::adapter(
                "no GPU adapter found: expected a Vulkan, Metal or DirectX 12 driver (natively) or a browser with WebGPU",
            )),
            None => {
                let names: Vec<_> = adapters.iter().map(|adapter| adapter.profile.name.as_str()).collect();
                Err(Error::adapter(format!("adapter {wanted:?} not found, expected one of: {}", names.join("; "))))
            }
        }
    }

    /// What the adapter can do.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The driver's name and version, as it gives them.
    pub fn driver(&self) -> String {
        let info = self.raw.get_info();
        format!("{} {}", info.driver, info.driver_info).trim().to_owned()
    }

    /// Whether it is a software implementation on the CPU.
    pub fn is_cpu(&self) -> bool {
        self.raw.get_info().device_type == wgpu::DeviceType::Cpu
    }
}

fn describe(adapter: &wgpu::Adapter, options: &AdapterOptions) -> Profile {
    let info = adapter.get_info();
    let features = adapter.features();
    let limits = adapter.limits();
    let backend = match info.backend {
        wgpu::Backend::Metal => Backend::Metal,
        wgpu::Backend::Dx12 => Backend::Dx12,
        wgpu::Backend::BrowserWebGpu => Backend::Browser,
        _ => Backend::Vulkan,
    };
    let browser = backend == Backend::Browser;
    let subgroups = if browser { options.browser_subgroups } else { features.contains(wgpu::Features::SUBGROUP) };
    let cooperative = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    let element = |scalar: wgpu::CooperativeScalarType| match scalar {
        wgpu::CooperativeScalarType::F16 => Some(Element::F16),
        wgpu::CooperativeScalarType::F32 => Some(Element::F32),
        _ => None,
    };
    let shapes = if cooperative { adapter.cooperative_matrix_properties() } else { Vec::new() };
    let mut cooperative_matrices: Vec<CooperativeMatrix> = Vec::new();
    for p in shapes.iter().filter(|p| !p.saturating_accumulation) {
        if let (Some(ab), Some(acc)) = (element(p.ab_type), element(p.cr_type)) {
            let shape = CooperativeMatrix { m: p.m_size, n: p.n_size, k: p.k_size, ab, acc };
            if !cooperative_matrices.contains(&shape) {
                cooperative_matrices.push(shape);
            }
        }
    }
    Profile {
        name: match options.browser_name.as_deref() {
            Some(name) if browser && info.name.is_empty() => name.to_owned(),
            _ => info.name.clone(),
        },
        backend,
        features: Features {
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups,
            integer_dot: options.integer_dot.unwrap_or(!browser && backend != Backend::Metal),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            immediates: !browser && features.contains(wgpu::Features::IMMEDIATES),
            pipeline_cache: features.contains(wgpu::Features::PIPELINE_CACHE),
        },
        limits: Limits {
            max_buffer_bytes: limits.max_buffer_size,
            // Vulkan's largest binding is often 2^32 - 1; a binding's size must be a multiple of 4.
            max_binding_bytes: limits.max_storage_buffer_binding_size & !15,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroup_size: [
                limits.max_compute_workgroup_size_x,
                limits.max_compute_workgroup_size_y,
                limits.max_compute_workgroup_size_z,
            ],
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            min_storage_offset_alignment: limits.min_storage_buffer_offset_alignment,
            min_uniform_offset_alignment: limits.min_uniform_buffer_offset_alignment,
        },
        subgroup: Subgroup { min: info.subgroup_min_size, max: info.subgroup_max_size },
        cooperative_matrices,
        memory_bytes: None,
        faults: Vec::new(),
    }
}
