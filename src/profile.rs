//! What an adapter can do, as plain data.
//!
//! The choice of a kernel's variant reads a [`Profile`] and nothing else, so it is tested without a GPU, with the
//! stored profiles of `src/profiles/*.json`. A device can be opened clipped to a profile ([`Profile::clip`]), so that
//! the path that another machine takes runs on this one.
//!
//! ```
//! use anygpu::profile::Profile;
//!
//! let phone = Profile::by_name("h100")?.clip(&Profile::by_name("webgpu-baseline")?);
//! assert!(!phone.features.f16 && phone.cooperative_matrices.is_empty());
//! assert_eq!(phone.limits.max_binding_bytes, 128 << 20);
//! # Ok::<(), anygpu::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a shader is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// SPIR-V, through naga.
    Vulkan,
    /// The Metal shading language, through naga.
    Metal,
    /// HLSL, through naga.
    Dx12,
    /// WGSL as it is, compiled by the browser.
    Browser,
}

/// Optional abilities of an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// The shader type `f16`.
    pub f16: bool,
    /// Subgroup operations in compute shaders.
    pub subgroups: bool,
    /// `dot4I8Packed` is one instruction. The function is there without it too, as slow code; wgpu does not say which.
    pub integer_dot: bool,
    /// Timestamps around a compute pass.
    pub timestamps: bool,
    /// Small constants set in a pass, without a buffer.
    pub immediates: bool,
    /// Compiled pipelines can be stored and loaded.
    pub pipeline_cache: bool,
}

/// Sizes that an adapter does not go beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest buffer.
    pub max_buffer_bytes: u64,
    /// The largest part of a buffer that one storage binding shows to a shader.
    pub max_binding_bytes: u64,
    /// Storage buffers that one shader may bind.
    pub max_storage_buffers: u32,
    /// Workgroups along each dimension of a dispatch.
    pub max_workgroups_per_dimension: u32,
    /// Invocations in a workgroup.
    pub max_workgroup_invocations: u32,
    /// Invocations in a workgroup along x, y and z.
    pub max_workgroup_size: [u32; 3],
    /// Memory that a workgroup shares.
    pub max_workgroup_bytes: u32,
    /// Offsets of storage bindings are multiples of this many bytes.
    pub min_storage_offset_alignment: u32,
    /// Offsets of uniform bindings are multiples of this many bytes.
    pub min_uniform_offset_alignment: u32,
}

/// The subgroup sizes, in invocations, that a pipeline may get; without meaning where [`Features::subgroups`] is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subgroup {
    /// The smallest size.
    pub min: u32,
    /// The largest size.
    pub max: u32,
}

/// The element type of a cooperative matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

/// A shape that the adapter multiplies as one: `acc[m, n] += a[m, k] · b[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CooperativeMatrix {
    /// Rows of `a` and `acc`.
    pub m: u32,
    /// Columns of `b` and `acc`.
    pub n: u32,
    /// Columns of `a`, rows of `b`.
    pub k: u32,
    /// The elements of `a` and `b`.
    pub ab: Element,
    /// The elements of `acc`.
    pub acc: Element,
}

/// What an adapter can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name that [`Profile::by_name`] takes, or the adapter's own.
    pub name: String,
    /// What shaders are compiled for.
    pub backend: Backend,
    /// Optional abilities.
    pub features: Features,
    /// Sizes.
    pub limits: Limits,
    /// The subgroup sizes that a pipeline may get.
    pub subgroup: Subgroup,
    /// Matrix shapes; wgpu does not check a shader's against them.
    pub cooperative_matrices: Vec<CooperativeMatrix>,
    /// Memory for buffers, where known.
    pub memory_bytes: Option<u64>,
    /// Known faults of the adapter or its driver, by name.
    pub faults: Vec<String>,
}

/// A file of `src/profiles`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Where the figures are from, for a reader of the file.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers of the file; a test looks that it is there"))]
    source: String,
    profile: Profile,
}

const STORED: [&str; 9] = [
    include_str!("profiles/webgpu-baseline.json"),
    include_str!("profiles/gtx-1660.json"),
    include_str!("profiles/rtx-3090.json"),
    include_str!("profiles/rtx-4090.json"),
    include_str!("profiles/a100.json"),
    include_str!("profiles/h100.json"),
    include_str!("profiles/m2-max.json"),
    include_str!("profiles/intel-igpu.json"),
    include_str!("profiles/rdna.json"),
];

fn stored_files() -> impl Iterator<Item = Stored> {
    STORED.iter().map(|text| serde_json::from_str(text).expect("a test parses every stored profile"))
}

impl Profile {
    /// The profiles that come with the crate, the least able one first.
    pub fn stored() -> Vec<Profile> {
        stored_files().map(|stored| stored.profile).collect()
    }

    /// The stored profile `name`.
    ///
    /// # Errors
    /// `Unsupported` for another name; the message lists the names.
    pub fn by_name(name: &str) -> Result<Profile> {
        let mut stored = Self::stored();
        match stored.iter().position(|profile| profile.name == name) {
            Some(index) => Ok(stored.swap_remove(index)),
            None => {
                let names: Vec<_> = stored.iter().map(|profile| profile.name.as_str()).collect();
                Err(Error::unsupported(format!("no profile `{name}`; there are {}", names.join(", "))))
            }
        }
    }

    /// What both have, on this adapter: a device opened with it takes the path that `to` takes.
    ///
    /// A subgroup size cannot be chosen, so subgroups stay only where every size of this adapter is one of `to`'s;
    /// the range is then `to`'s, because a kernel that is right for the wider range is what is to be tried. Cooperative
    /// matrices go with the subgroups that hold them. The faults of both count. The backend stays this one's.
    #[must_use]
    pub fn clip(&self, to: &Profile) -> Profile {
        let (a, b) = (&self.features, &to.features);
        let range_kept = self.subgroup.min >= to.subgroup.min && self.subgroup.max <= to.subgroup.max;
        let features = Features {
            f16: a.f16 && b.f16,
            subgroups: a.subgroups && b.subgroups && range_kept,
            integer_dot: a.integer_dot && b.integer_dot,
            timestamps: a.timestamps && b.timestamps,
            immediates: a.immediates && b.immediates,
            pipeline_cache: a.pipeline_cache && b.pipeline_cache,
        };
        let shapes = self.cooperative_matrices.iter().copied();
        let mut faults = self.faults.clone();
        faults.extend(to.faults.iter().filter(|fault| !self.faults.contains(fault)).cloned());
        Profile {
            name: format!("{} clipped to {}", self.name, to.name),
            backend: self.backend,
            features,
            limits: self.limits.clip(&to.limits),
            subgroup: if features.subgroups { to.subgroup } else { self.subgroup },
            cooperative_matrices: shapes
                .filter(|shape| features.subgroups && to.cooperative_matrices.contains(shape))
                .collect(),
            memory_bytes: [self.memory_bytes, to.memory_bytes].into_iter().flatten().min(),
            faults,
        }
    }

    /// The size of every subgroup, in invocations, where subgroups are on and have one size.
    pub fn fixed_subgroup(&self) -> Option<u32> {
        let Subgroup { min, max } = self.subgroup;
        (self.features.subgroups && min == max).then_some(min)
    }
}

impl Limits {
    /// The stricter of each pair.
    fn clip(&self, to: &Limits) -> Limits {
        Limits {
            max_buffer_bytes: self.max_buffer_bytes.min(to.max_buffer_bytes),
            max_binding_bytes: self.max_binding_bytes.min(to.max_binding_bytes),
            max_storage_buffers: self.max_storage_buffers.min(to.max_storage_buffers),
            max_workgroups_per_dimension: self.max_workgroups_per_dimension.min(to.max_workgroups_per_dimension),
            max_workgroup_invocations: self.max_workgroup_invocations.min(to.max_workgroup_invocations),
            max_workgroup_size: std::array::from_fn(|i| self.max_workgroup_size[i].min(to.max_workgroup_size[i])),
            max_workgroup_bytes: self.max_workgroup_bytes.min(to.max_workgroup_bytes),
            min_storage_offset_alignment: self.min_storage_offset_alignment.max(to.min_storage_offset_alignment),
            min_uniform_offset_alignment: self.min_uniform_offset_alignment.max(to.min_uniform_offset_alignment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn stored_profiles_parse_and_are_plausible() {
        for text in STORED {
            let head: String = text.chars().take(200).collect();
            let Stored { source, profile } =
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {head}"));
            let (name, limits) = (&profile.name, &profile.limits);
            assert!(source.len() > 20, "{name}: says where its figures are from");
            assert!(limits.max_binding_bytes <= limits.max_buffer_bytes, "{name}: a binding is part of a buffer");
            assert!(limits.max_binding_bytes % 4 == 0, "{name}: bindings hold whole words");
            assert!(limits.max_storage_buffers >= 8, "{name}: WebGPU's least");
            assert!(limits.max_workgroup_invocations >= 256, "{name}: WebGPU's least");
            assert!(limits.max_workgroup_bytes >= 16384, "{name}: WebGPU's least");
            for alignment in [limits.min_storage_offset_alignment, limits.min_uniform_offset_alignment] {
                assert!(alignment.is_power_of_two() && alignment <= 256, "{name}: alignment {alignment}");
            }
            let Subgroup { min, max } = profile.subgroup;
            assert!(min.is_power_of_two() && max.is_power_of_two() && min <= max, "{name}: subgroups {min}..{max}");
            let backend = profile.backend;
            for shape in &profile.cooperative_matrices {
                assert!(profile.features.subgroups, "{name}: {shape:?} is held by a subgroup");
                assert!(matches!(backend, Backend::Vulkan | Backend::Metal), "{name}: {shape:?} on {backend:?}");
                assert!(backend != Backend::Metal || (shape.m, shape.n, shape.k) == (8, 8, 8), "{name}: {shape:?}");
            }
            let json = serde_json::to_string(&profile).unwrap();
            assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile, "{name}");
        }
    }

    #[test]
    fn every_profile_is_found_by_its_name_only() {
        let stored = Profile::stored();
        for profile in &stored {
            assert_eq!(&Profile::by_name(&profile.name).unwrap(), profile);
        }
        let error = Profile::by_name("voodoo-2").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.to_string().starts_with("no profile `voodoo-2`; there are webgpu-baseline, gtx-1660,"),
            "{error}"
        );
        assert_eq!(stored[0].name, "webgpu-baseline");
    }

    #[test]
    fn a_clipped_profile_has_nothing_that_either_lacks() {
        for a in Profile::stored() {
            for b in Profile::stored() {
                let c = a.clip(&b);
                let case = &c.name;
                assert_eq!(*case, format!("{} clipped to {}", a.name, b.name));
                assert_eq!(c.backend, a.backend, "{case}");
                for other in [&a, &b] {
                    assert_eq!(c.limits.clip(&other.limits), c.limits, "{case}: limits of {}", other.name);
                    assert!(!c.features.f16 || other.features.f16, "{case}: f16");
                    assert!(!c.features.subgroups || other.features.subgroups, "{case}: subgroups");
                    assert!(!c.features.integer_dot || other.features.integer_dot, "{case}: integer dot");
                    assert!(c.memory_bytes <= other.memory_bytes || other.memory_bytes.is_none(), "{case}: memory");
                    for shape in &c.cooperative_matrices {
                        assert!(other.cooperative_matrices.contains(shape), "{case}: {shape:?}");
                    }
                }
                if c.features.subgroups {
                    let (own, said) = (a.subgroup, c.subgroup);
                    assert!(said.min <= own.min && own.max <= said.max, "{case}: {own:?} said to be {said:?}");
                }
            }
            let itself = a.clip(&a);
            assert_eq!(Profile { name: a.name.clone(), ..itself }, a);
        }
    }

    #[test]
    fn subgroups_survive_a_clip_only_where_their_sizes_do() {
        let cases = [
            ("h100", "gtx-1660", Some((32, 32))),
            ("h100", "rdna", Some((32, 64))),
            ("rdna", "h100", None),
            ("intel-igpu", "h100", None),
            ("h100", "intel-igpu", Some((8, 32))),
            ("h100", "webgpu-baseline", None),
        ];
        for (a, b, expected) in cases {
            let clipped = Profile::by_name(a).unwrap().clip(&Profile::by_name(b).unwrap());
            let found = clipped.features.subgroups.then_some((clipped.subgroup.min, clipped.subgroup.max));
            assert_eq!(found, expected, "{}", clipped.name);
            let fixed = expected.and_then(|(min, max)| (min == max).then_some(min));
            assert_eq!(clipped.fixed_subgroup(), fixed, "{}", clipped.name);
        }
    }

    #[test]
    fn coarser_alignments_and_all_faults_win() {
        let mut a = Profile::by_name("h100").unwrap();
        let mut b = Profile::by_name("webgpu-baseline").unwrap();
        a.faults = vec!["x".into(), "y".into()];
        b.faults = vec!["y".into(), "z".into()];
        let clipped = a.clip(&b);
        assert_eq!(clipped.faults, ["x", "y", "z"]);
        assert_eq!(clipped.limits.min_storage_offset_alignment, b.limits.min_storage_offset_alignment);
        assert_eq!(clipped.limits.max_binding_bytes, 128 << 20);
    }
}
