//! A [`Kernel`] launched on Burn's tensors, in the order of Burn's own launches.
//!
//! The runtime below Burn has one group of bindings and writes to any of them: tensors share buffers, and no buffer is both
//! read-only and writable in one dispatch. It derives layouts from shaders, which leaves out bindings that a variant does not
//! use. [`adapt`] makes a shader fit all that.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::wgpu::{
    CubeBackend, CubeDim, CubeTensor, KernelSource, SourceKernel, SourceTemplate, into_contiguous,
};
use burn::tensor::{Int, Tensor as BurnTensor};
use burn_cubecl::cubecl::prelude::{CubeCount, ExecutionMode, KernelId};
use burn_cubecl::cubecl::server::{KernelArguments, MetadataBindingInfo};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernels::Kernel;
use crate::profile::Profile;
use crate::shader::{Flag, Spec};
use crate::tensor::{Storage, Tensor};

/// A rendered shader: text, and its key among Burn's pipelines.
struct Source {
    spec: Spec,
    bindings: usize,
    text: Arc<str>,
}

impl KernelSource for Source {
    fn source(&self) -> SourceTemplate {
        SourceTemplate::new(&*self.text)
    }

    fn id(&self) -> KernelId {
        let mode = if self.spec.is_trusted() { ExecutionMode::Unchecked } else { ExecutionMode::Checked };
        KernelId::new::<Self>().info((self.spec.clone(), self.bindings)).mode(mode)
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// Burn's tensors that a kernel's [`Tensor`]s stand for.
#[derive(Default)]
pub struct Operands(Vec<CubeTensor>);

impl Operands {
    fn push(&mut self, tensor: CubeTensor, dtype: DType, shape: &[usize]) -> Tensor {
        self.0.push(tensor);
        Tensor::new(Storage::Activation(self.0.len() as u32 - 1), 0, dtype, shape)
    }

    /// Floats that the kernel reads.
    ///
    /// # Errors
    /// `Unsupported` where they are not f32 on a device that runs WGSL.
    pub fn floats<const D: usize>(&mut self, tensor: &BurnTensor<D>) -> Result<Tensor> {
        let shape = tensor.dims();
        let cube = into_contiguous(on_wgsl(tensor.clone().try_into_primitive::<CubeBackend>())?);
        four_bytes(&cube)?;
        Ok(self.push(cube, DType::F32, &shape))
    }

    /// Words that the kernel reads, as those of `shape`: of u32, or packed blocks of a weight format.
    ///
    /// # Errors
    /// As [`Self::floats`].
    pub fn words<const D: usize>(
        &mut self,
        tensor: &BurnTensor<D, Int>,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Tensor> {
        let cube = into_contiguous(on_wgsl(tensor.clone().try_into_primitive::<CubeBackend>())?);
        four_bytes(&cube)?;
        Ok(self.push(cube, dtype, shape))
    }

    /// Floats that the kernel overwrites, in place where nothing else holds them.
    ///
    /// # Errors
    /// As [`Self::floats`].
    pub fn taken(&mut self, tensor: BurnTensor<2>) -> Result<Tensor> {
        let shape = tensor.dims();
        let mut cube = into_contiguous(on_wgsl(tensor.try_into_primitive::<CubeBackend>())?);
        four_bytes(&cube)?;
        if !cube.can_mut() {
            cube = cube.copy();
        }
        Ok(self.push(cube, DType::F32, &shape))
    }

    /// Floats that the kernel writes, uninitialised, on the device of the operands before.
    ///
    /// # Errors
    /// `Unsupported` where there are none.
    pub fn output(&mut self, shape: [usize; 2]) -> Result<Tensor> {
        let beside = self.0.first().ok_or_else(|| Error::unsupported("a kernel without inputs: expected one"))?;
        let (client, device) = (beside.client.clone(), beside.device.clone());
        let handle = client.empty(4 * shape.iter().product::<usize>());
        let cube = CubeTensor::new_contiguous(client, device, shape.into(), handle, burn::tensor::DType::F32);
        Ok(self.push(cube, DType::F32, &shape))
    }

    /// What became of an operand.
    ///
    /// # Errors
    /// `Shape` where it is none of these.
    pub fn take(mut self, tensor: &Tensor) -> Result<BurnTensor<2>> {
        let at = self.index(tensor)?;
        Ok(BurnTensor::from_primitive::<CubeBackend>(self.0.swap_remove(at)))
    }

    fn index(&self, tensor: &Tensor) -> Result<usize> {
        match tensor.storage() {
            Storage::Activation(at) if (*at as usize) < self.0.len() && tensor.offset() == 0 => Ok(*at as usize),
            _ => Err(Error::shape("a tensor of a plan: expected one of the operands")),
        }
    }
}

/// The primitive, where it is on a device that runs WGSL: the backend's type says only that it is one of several runtimes.
fn on_wgsl<E: fmt::Debug>(primitive: std::result::Result<CubeTensor, E>) -> Result<CubeTensor> {
    let expected = "expected a tensor of a device that burn_kernels::open gave, without autodiff";
    let cube = primitive.map_err(|error| Error::unsupported(format!("{error:?}: {expected}")))?;
    match cube.client.name() {
        "wgpu<wgsl>" => Ok(cube),
        found => Err(Error::unsupported(format!("a tensor of {found}: {expected}"))),
    }
}

fn four_bytes(cube: &CubeTensor) -> Result<()> {
    use burn::tensor::DType;
    match cube.dtype {
        DType::F32 | DType::I32 | DType::U32 => Ok(()),
        found => Err(Error::unsupported(format!("a tensor of {found:?}: expected F32, I32 or U32"))),
    }
}

/// Launches kernels on a device that Burn shares.
pub struct Launcher {
    profile: Profile,
    sources: Mutex<HashMap<(Spec, usize), Arc<str>>>,
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher").field("profile", &self.profile.name).finish_non_exhaustive()
    }
}

impl Launcher {
    pub(super) fn new(profile: Profile) -> Self {
        Self { profile, sources: Mutex::default() }
    }

    /// What the device can do.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Launches a kernel; `context` is an upper bound of the positions that it attends to.
    ///
    /// # Errors
    /// `Shape` where the arguments do not fit together, `Unsupported` for a shader that does not render. What the device
    /// refuses comes with the data that is read.
    pub fn launch(&self, kernel: &impl Kernel, operands: &Operands, context: usize) -> Result<()> {
        kernel.check()?;
        let bindings = kernel.bindings();
        let source = self.source(kernel.spec(&self.profile).flag(Flag::WRITABLE), bindings.len())?;
        let mut arguments = KernelArguments::new();
        let mut client = None;
        for binding in &bindings {
            let cube = &operands.0[operands.index(&binding.tensor)?];
            client.get_or_insert_with(|| cube.client.clone());
            arguments = arguments.with_buffer(cube.handle.clone().binding());
        }
        let mut params = kernel.params().bytes;
        params.resize(params.len().next_multiple_of(16), 0);
        arguments = arguments.with_info(MetadataBindingInfo::custom(bytemuck::pod_collect_to_vec(&params)));
        let client = client.ok_or_else(|| Error::shape(format!("{}: no tensors", kernel.name())))?;
        let [x, y, z] = kernel.grid(&self.profile, context);
        let kernel = SourceKernel::new(source, CubeDim::new_single());
        client.launch(Box::new(kernel), CubeCount::Static(x, y, z), arguments);
        Ok(())
    }

    fn source(&self, spec: Spec, bindings: usize) -> Result<Source> {
        // A text is whole once it is in.
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (spec, bindings);
        let text = match sources.get(&key) {
            Some(text) => text.clone(),
            None => {
                let text: Arc<str> = adapt(&key.0.render()?, bindings).into();
                sources.insert(key.clone(), text.clone());
                text
            }
        };
        Ok(Source { spec: key.0, bindings, text })
    }
}

/// The shader with all bindings writable, its parameters behind the tensors in group 0, and `main` naming every binding.
fn adapt(source: &str, bindings: usize) -> String {
    let source = crate::shader::writable(source)
        .replace("@group(0) @binding(15) var<uniform>", &format!("@group(0) @binding({bindings}) var<uniform>"));
    let name = |line: &str| {
        let (_, declared) = line.split_once("var<storage, read_write> ")?;
        Some(format!("    _ = arrayLength(&{});\n", declared.split(':').next()?.trim()))
    };
    let uses: String = source.lines().filter_map(name).collect();
    let body = source.find("fn main(").and_then(|main| Some(main + source[main..].find('{')? + 1));
    match body {
        Some(body) => format!("{}\n{uses}    _ = params;{}", &source[..body], &source[body..]),
        None => source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shader::Target;

    #[test]
    fn shaders_get_one_group_of_writable_bindings_that_main_uses() {
        let source = Spec::new("rms_norm", Target::Native)
            .constant("K", 8u32)
            .constant("WORKGROUP", 64u32)
            .slot("output", "output/f32")
            .render()
            .unwrap();
        let adapted = adapt(&source, 3);
        assert!(adapted.contains("@group(0) @binding(3) var<uniform> params: Params;"), "{adapted}");
        assert!(!adapted.contains("@binding(15)") && !adapted.contains("storage, read>"), "{adapted}");
        for name in ["x", "weight", "out"] {
            assert!(adapted.contains(&format!("_ = arrayLength(&{name});")), "{adapted}");
        }
        naga::front::wgsl::parse_str(&adapted).unwrap();
    }

    #[test]
    fn a_spec_is_a_pipeline_of_its_own() {
        let source = |flag: Option<Flag>, bindings| {
            let spec = Spec::new("copy", Target::Native).constant("WORKGROUP", 64u32);
            let spec = flag.into_iter().fold(spec, Spec::flag);
            Source { spec, bindings, text: "".into() }.id()
        };
        assert_eq!(source(None, 2), source(None, 2));
        assert_ne!(source(None, 2), source(Some(Flag::F16), 2));
        assert_ne!(source(None, 2), source(None, 3));
    }
}
