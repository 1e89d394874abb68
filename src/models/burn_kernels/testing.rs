//! The devices and kernels that Burn modules are tested on.

use burn::tensor::{Device, Tensor};

use super::{Gpu, Kernels, open};
use crate::gpu::Adapter;

/// Where a module runs.
pub struct Place {
    pub name: &'static str,
    pub device: Device,
    pub kernels: Kernels,
    /// Whether products may round to f16.
    pub rounds: bool,
}

/// The adapter's device, shared.
pub fn gpu() -> Gpu {
    pollster::block_on(async { open(&Adapter::request(&Default::default()).await?).await }).unwrap()
}

/// Burn on the CPU, Burn on the GPU, and this crate's kernels there, in f32 and as they suit the device.
pub fn places(gpu: &Gpu) -> Vec<Place> {
    let place = |name, device: &Device, kernels, rounds| Place { name, device: device.clone(), kernels, rounds };
    let rounds = gpu.launcher.profile().features.f16;
    vec![
        place("burn-cpu", &Device::flex(), Kernels::Burn, false),
        place("burn-wgpu", &gpu.device, Kernels::Burn, false),
        place("burn-wgpu+anygpu, plain", &gpu.device, gpu.plain_kernels(), false),
        place("burn-wgpu+anygpu", &gpu.device, gpu.kernels(), rounds),
    ]
}

/// A tensor's values.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}
