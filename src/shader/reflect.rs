//! What a rendered shader declares, and whether it compiles for a profile. For tests: naga is a development dependency.

use std::fmt::Display;
use std::io;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, CooperativeRole, Handle, Module, ShaderStage, StorageAccess, Type, TypeInner};

use crate::error::{Error, Result};
use crate::profile::{Backend, CooperativeMatrix, Element, Profile};
use crate::shader::PARAMS;

/// One entry of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// Bytes from the start of the struct.
    pub offset: u32,
    /// In WGSL: `u32`, `vec4<f32>`, `array<u32, 4>`.
    pub ty: String,
    /// Bytes, without what follows up to the next field.
    pub size: u32,
}

/// A struct as it lies in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub name: String,
    pub fields: Vec<Field>,
    /// Bytes, with what fills up the last field's alignment.
    pub size: u32,
}

/// How a shader uses a storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Read,
    ReadWrite,
}

/// A storage buffer of group 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub index: u32,
    pub name: String,
    pub access: Access,
    /// In WGSL: `array<vec4<f32>>`, or the name of a struct.
    pub ty: String,
}

/// What a shader declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reflection {
    /// The struct of the parameters, or of an immediate variable.
    pub params: Option<Layout>,
    /// Group 0, sorted by index.
    pub bindings: Vec<Binding>,
    pub workgroup_size: [u32; 3],
    /// Workgroup memory that `main` uses, unused declarations left out.
    pub workgroup_bytes: u32,
}

/// What `source`, a rendered shader, declares.
///
/// # Errors
/// `Unsupported` where naga refuses it, and where it is not of the form that this crate keeps to: one compute entry
/// point `main`; storage buffers in group 0, with indices from 0 without a gap, inputs before outputs; the parameters
/// at [`PARAMS`] of it.
pub fn reflect(source: &str) -> Result<Reflection> {
    let module = parse(source)?;
    let info = check(&module, source, Capabilities::all())?;
    reflection(&module, &info)
}

/// Checks that `source`, rendered for `profile`, compiles to the profile's targets and stays within its limits.
///
/// Vulkan means SPIR-V, Metal MSL, DX12 HLSL; a browser means all three (that is what browsers make of it) and, where
/// the program `tint` is there, Chrome's own front end.
///
/// # Errors
/// `Unsupported`, with what is refused by whom.
pub fn validate(source: &str, profile: &Profile) -> Result<()> {
    validate_inner(source, profile).map_err(|error| error.context(format_args!("profile {}", profile.name)))
}

fn validate_inner(source: &str, profile: &Profile) -> Result<()> {
    let module = parse(source)?;
    let info = check(&module, source, capabilities(profile))?;
    check_limits(&reflection(&module, &info)?, profile)?;
    check_cooperative_matrices(&module, &info, &profile.cooperative_matrices)?;
    match profile.backend {
        Backend::Vulkan => write_spirv(&module, &info),
        Backend::Metal => write_msl(&module, &info),
        Backend::Dx12 => write_hlsl(&module, &info),
        Backend::Browser => {
            write_spirv(&module, &info)?;
            write_msl(&module, &info)?;
            write_hlsl(&module, &info)?;
            run_tint(source)
        }
    }
}

fn refused(by: &str, message: impl Display) -> Error {
    Error::unsupported(format!("{by}: {message}"))
}

/// The module, without the lines that browsers demand and naga refuses.
fn parse(source: &str) -> Result<Module> {
    let for_browsers = ["enable subgroups;", "diagnostic(off, subgroup_uniformity);"];
    let lines = source.lines().map(|line| if for_browsers.contains(&line) { "" } else { line });
    let source: String = lines.flat_map(|line| [line, "\n"]).collect();
    naga::front::wgsl::parse_str(&source).map_err(|error| refused("naga", error.emit_to_string(&source)))
}

fn check(module: &Module, source: &str, capabilities: Capabilities) -> Result<ModuleInfo> {
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.validate(module).map_err(|error| refused("naga's validator", error.emit_to_string(source)))
}

fn capabilities(profile: &Profile) -> Capabilities {
    let features = &profile.features;
    let native = profile.backend != Backend::Browser;
    // HLSL has no barrier for a subgroup, and WGSL in browsers no function for one.
    let barrier = matches!(profile.backend, Backend::Vulkan | Backend::Metal);
    let all = [
        // `pack2x16float` and its inverse, which WebGPU has everywhere.
        (true, Capabilities::SHADER_FLOAT16_IN_FLOAT32),
        (features.f16, Capabilities::SHADER_FLOAT16),
        (features.subgroups, Capabilities::SUBGROUP),
        (features.subgroups && barrier, Capabilities::SUBGROUP_BARRIER),
        (features.immediates && native, Capabilities::IMMEDIATES),
        (!profile.cooperative_matrices.is_empty(), Capabilities::COOPERATIVE_MATRIX),
    ];
    all.into_iter().filter(|(on, _)| *on).map(|(_, capability)| capability).collect()
}

fn reflection(module: &Module, info: &ModuleInfo) -> Result<Reflection> {
    let [entry] = &module.entry_points[..] else {
        return Err(refused("form", format_args!("{} entry points, expected one", module.entry_points.len())));
    };
    if entry.name != "main" || entry.stage != ShaderStage::Compute {
        return Err(refused("form", format_args!("entry point `{}`, expected a compute shader `main`", entry.name)));
    }
    let (mut params, mut bindings, mut workgroup_bytes) = (None, Vec::new(), 0);
    for (handle, variable) in module.global_variables.iter() {
        let name = variable.name.as_deref().unwrap_or("(no name)");
        let at = variable.binding.map(|binding| (binding.group, binding.binding));
        match (variable.space, at) {
            (AddressSpace::Storage { access }, Some((0, index))) => {
                let writes = access.contains(StorageAccess::STORE);
                bindings.push(Binding {
                    index,
                    name: name.to_owned(),
                    access: if writes { Access::ReadWrite } else { Access::Read },
                    ty: type_name(module, variable.ty),
                });
            }
            (AddressSpace::Uniform, Some((0, PARAMS))) | (AddressSpace::Immediate, None) if params.is_none() => {
                params = Some(layout(module, variable.ty)?);
            }
            (AddressSpace::WorkGroup, None) => {
                if !info.get_entry_point(0)[handle].is_empty() {
                    workgroup_bytes += module.types[variable.ty].inner.size(module.to_ctx());
                }
            }
            (AddressSpace::Private, None) => {}
            (space, at) => {
                let message = format_args!("`{name}` in {space:?} at (group, binding) {at:?}");
                return Err(refused("form: storage belongs to group 0, params to its binding 15", message));
            }
        }
    }
    bindings.sort_by_key(|binding| binding.index);
    for (expected, binding) in bindings.iter().enumerate() {
        if binding.index as usize != expected {
            let message = format_args!("`{}` has index {}, expected {expected}", binding.name, binding.index);
            return Err(refused("form", message));
        }
    }
    if let Some(pair) = bindings.windows(2).find(|pair| pair[0].access > pair[1].access) {
        let message = format_args!("input `{}` comes after output `{}`", pair[1].name, pair[0].name);
        return Err(refused("form", message));
    }
    Ok(Reflection { params, bindings, workgroup_size: entry.workgroup_size, workgroup_bytes })
}

fn layout(module: &Module, ty: Handle<Type>) -> Result<Layout> {
    let name = type_name(module, ty);
    let TypeInner::Struct { members, span } = &module.types[ty].inner else {
        return Err(refused("form", format_args!("the parameters are {name}, expected a struct")));
    };
    let fields = members
        .iter()
        .map(|member| Field {
            name: member.name.clone().unwrap_or_default(),
            offset: member.offset,
            ty: type_name(module, member.ty),
            size: module.types[member.ty].inner.size(module.to_ctx()),
        })
        .collect();
    Ok(Layout { name, fields, size: *span })
}

/// The type in WGSL, structs by their names; other types than buffers hold come out in naga's words.
fn type_name(module: &Module, ty: Handle<Type>) -> String {
    let scalar = |scalar: &naga::Scalar| {
        let kind = match scalar.kind {
            naga::ScalarKind::Sint => "i",
            naga::ScalarKind::Uint => "u",
            naga::ScalarKind::Float => "f",
            other => return format!("{other:?}"),
        };
        format!("{kind}{}", u32::from(scalar.width) * 8)
    };
    let ty = &module.types[ty];
    match &ty.inner {
        TypeInner::Struct { .. } => ty.name.clone().unwrap_or_default(),
        TypeInner::Scalar(inner) => scalar(inner),
        TypeInner::Atomic(inner) => format!("atomic<{}>", scalar(inner)),
        TypeInner::Vector { size, scalar: inner } => format!("vec{}<{}>", *size as u32, scalar(inner)),
        TypeInner::Array { base, size: naga::ArraySize::Dynamic, .. } => format!("array<{}>", type_name(module, *base)),
        TypeInner::Array { base, size: naga::ArraySize::Constant(size), .. } => {
            format!("array<{}, {size}>", type_name(module, *base))
        }
        other => format!("{other:?}"),
    }
}

fn check_limits(found: &Reflection, profile: &Profile) -> Result<()> {
    let limits = &profile.limits;
    let size = found.workgroup_size;
    let rows = [
        ("storage buffers", found.bindings.len() as u64, u64::from(limits.max_storage_buffers)),
        ("bytes of workgroup memory", found.workgroup_bytes.into(), limits.max_workgroup_bytes.into()),
        ("invocations", size.iter().map(|n| u64::from(*n)).product(), limits.max_workgroup_invocations.into()),
        ("invocations along x", size[0].into(), limits.max_workgroup_size[0].into()),
        ("invocations along y", size[1].into(), limits.max_workgroup_size[1].into()),
        ("invocations along z", size[2].into(), limits.max_workgroup_size[2].into()),
    ];
    match rows.iter().find(|(_, found, limit)| found > limit) {
        Some((what, found, limit)) => Err(refused("limits", format_args!("{found} {what}, at most {limit}"))),
        None => Ok(()),
    }
}

/// Every pair of an operand's type and a result's type that the shader could multiply must be a shape of the profile.
fn check_cooperative_matrices(module: &Module, info: &ModuleInfo, shapes: &[CooperativeMatrix]) -> Result<()> {
    let mut matrices = Vec::new();
    let mut note = |inner: &TypeInner| {
        if let TypeInner::CooperativeMatrix { columns, rows, scalar, role } = *inner {
            let element = if scalar.width == 2 { Element::F16 } else { Element::F32 };
            matrices.push((columns as u32, rows as u32, element, role));
        }
    };
    module.types.iter().for_each(|(_, ty)| note(&ty.inner));
    // A tile that is loaded and used where it stands has its type in the expression only, where naga's validator does
    // not look for the capability either.
    let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
    let entries = module.entry_points.iter().enumerate();
    for (function, info) in
        functions.chain(entries.map(|(index, entry)| (&entry.function, info.get_entry_point(index))))
    {
        function.expressions.iter().for_each(|(handle, _)| note(info[handle].ty.inner_with(&module.types)));
    }
    for (columns, rows, element, role) in &matrices {
        let fits = shapes.iter().any(|shape| match role {
            CooperativeRole::A => (shape.m, shape.k, shape.ab) == (*rows, *columns, *element),
            CooperativeRole::B => (shape.k, shape.n, shape.ab) == (*rows, *columns, *element),
            CooperativeRole::C => {
                let ab = |shape: &CooperativeMatrix| {
                    let of_role = |role| matrices.iter().any(|matrix| matrix.2 == shape.ab && matrix.3 == role);
                    of_role(CooperativeRole::A) && of_role(CooperativeRole::B)
                };
                (shape.m, shape.n, shape.acc) == (*rows, *columns, *element) && ab(shape)
            }
        });
        if !fits {
            let message = format_args!("{rows}x{columns} {element:?} as {role:?} is part of no shape in {shapes:?}");
            return Err(refused("cooperative matrix", message));
        }
    }
    Ok(())
}

fn write_spirv(module: &Module, info: &ModuleInfo) -> Result<()> {
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
    // Vulkan 1.1, the oldest with subgroups, takes SPIR-V 1.3; Vulkan 1.3 takes 1.6, which naga writes differently.
    for lang_version in [(1, 3), (1, 6)] {
        let options = spv::Options { lang_version, ..Default::default() };
        spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|error| refused("SPIR-V", error))?;
    }
    Ok(())
}

fn write_msl(module: &Module, info: &ModuleInfo) -> Result<()> {
    // MSL 2.4 (macOS 12) is what the oldest Mac with an Apple GPU can have been brought to; simdgroup_matrix needs 2.3.
    let options = msl::Options { lang_version: (2, 4), ..Default::default() };
    let pipeline =
        msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".into())), ..Default::default() };
    let (_, translation) =
        msl::write_string(module, info, &options, &pipeline).map_err(|error| refused("MSL", error))?;
    for entry in translation.entry_point_names {
        entry.map_err(|error| refused("MSL", error))?;
    }
    Ok(())
}

fn write_hlsl(module: &Module, info: &ModuleInfo) -> Result<()> {
    // 6.2 is the first shader model with 16-bit floats.
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..Default::default() };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".into())) };
    let mut out = String::new();
    let written = hlsl::Writer::new(&mut out, &options, &pipeline)
        .write(module, info, None)
        .map_err(|error| refused("HLSL", error))?;
    for entry in written.entry_point_names {
        entry.map_err(|error| refused("HLSL", error))?;
    }
    Ok(())
}

/// Chrome's WGSL front end; nothing where the program is not installed.
fn run_tint(source: &str) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("anygpu-{}-{number}.wgsl", process::id()));
    std::fs::write(&file, source)?;
    let output = Command::new("tint").args(["--format", "wgsl"]).arg(&file).output();
    std::fs::remove_file(&file)?;
    match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(refused("tint", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The lines of `text` that declare a storage buffer and do not end in its shape, `// x[M, K]`, with their numbers.
fn lines_without_shape(text: &str) -> Vec<(usize, &str)> {
    let has_shape = |line: &str| -> Option<bool> {
        let (code, comment) = line.split_once("//").unwrap_or((line, ""));
        let declaration = code.split_once("var<storage")?.1;
        let name = declaration.split_once('>')?.1.split(':').next()?.trim();
        let shape = comment.trim_start().strip_prefix(name).and_then(|rest| rest.strip_prefix('['));
        Some(shape.is_some_and(|shape| shape.find(']').is_some_and(|end| end > 0)))
    };
    let lines = text.lines().enumerate().filter(|(_, line)| has_shape(line) == Some(false));
    lines.map(|(index, line)| (index + 1, line)).collect()
}

#[cfg(test)]
mod tests;
