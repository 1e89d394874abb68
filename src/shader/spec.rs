//! What a shader is specialised by.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use super::library;
use super::preprocess::{Inputs, preprocess};
use crate::error::{Error, Result};
use crate::profile::{Backend, Profile};

/// Who compiles the WGSL: naga and browsers differ in the `enable` lines that they demand and refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// naga, for Vulkan, Metal and DX12.
    Native,
    /// A browser.
    Browser,
}

impl Target {
    /// The target of `profile`'s backend.
    pub fn of(profile: &Profile) -> Target {
        match profile.backend {
            Backend::Vulkan | Backend::Metal | Backend::Dx12 => Target::Native,
            Backend::Browser => Target::Browser,
        }
    }
}

/// What a shader is written for: an ability of the hardware, or how its input lies. `#ifdef` takes the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "spelled as in the shaders")]
pub enum Flag {
    /// The type `f16`.
    F16,
    /// Subgroup operations.
    SUBGROUPS,
    /// Cooperative matrices.
    COOP_MATRIX,
    /// `dot4I8Packed` as one instruction.
    DOT4,
    /// Input in tiles of halves.
    TILES,
    /// Output in halves, one an element.
    HALVES,
    /// Blocks of results held by 32 neighbours of a subgroup.
    SPREAD,
    /// All buffers are bound writable, as Burn does: what all invocations read alike of one, a browser's compiler takes for
    /// different. `pool` and `attention_packed` by lanes heed it; what else has barriers in loops over a buffer's values does not
    /// run so in a browser.
    WRITABLE,
}

impl Flag {
    /// Every flag.
    pub const ALL: [Flag; 8] = [
        Flag::F16,
        Flag::SUBGROUPS,
        Flag::COOP_MATRIX,
        Flag::DOT4,
        Flag::TILES,
        Flag::HALVES,
        Flag::SPREAD,
        Flag::WRITABLE,
    ];

    /// The name that `#ifdef` takes.
    pub fn name(self) -> &'static str {
        match self {
            Flag::F16 => "F16",
            Flag::SUBGROUPS => "SUBGROUPS",
            Flag::COOP_MATRIX => "COOP_MATRIX",
            Flag::DOT4 => "DOT4",
            Flag::TILES => "TILES",
            Flag::HALVES => "HALVES",
            Flag::SPREAD => "SPREAD",
            Flag::WRITABLE => "WRITABLE",
        }
    }

    /// The flag of that name.
    pub fn by_name(name: &str) -> Option<Flag> {
        Flag::ALL.into_iter().find(|flag| flag.name() == name)
    }
}

/// A set of [`Flag`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// The set with `flag` in it.
    #[must_use]
    pub fn with(self, flag: Flag) -> Flags {
        Flags(self.0 | 1 << flag as u8)
    }

    /// Whether `flag` is in the set.
    pub fn has(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u8 != 0
    }
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Flags {
        flags.into_iter().fold(Flags::default(), Flags::with)
    }
}

/// The value of a `const` line; floats are compared and hashed by their bits, so that a [`Spec`] is a key.
#[derive(Clone, Copy, Debug)]
pub enum Const {
    /// `u32`.
    U32(u32),
    /// `i32`.
    I32(i32),
    /// `f32`; finite.
    F32(f32),
    /// `bool`.
    Bool(bool),
}

impl Const {
    fn bits(self) -> (u8, u32) {
        match self {
            Const::U32(value) => (0, value),
            Const::I32(value) => (1, value.cast_unsigned()),
            Const::F32(value) => (2, value.to_bits()),
            Const::Bool(value) => (3, value.into()),
        }
    }
}

impl PartialEq for Const {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Const {}

impl Hash for Const {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

macro_rules! const_from {
    ($($type:ident $variant:ident),*) => {
        $(impl From<$type> for Const {
            fn from(value: $type) -> Const {
                Const::$variant(value)
            }
        })*
    };
}

const_from! { u32 U32, i32 I32, f32 F32, bool Bool }

/// Everything that the source of a shader depends on, and the key of its pipeline.
///
/// The rendered source is made of the spec and the embedded files and of nothing else, so two equal specs are the same
/// pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    kernel: &'static str,
    target: Target,
    flags: Flags,
    constants: BTreeMap<&'static str, Const>,
    aliases: BTreeMap<&'static str, &'static str>,
    slots: BTreeMap<&'static str, String>,
    trusted: bool,
    inputs_writable: bool,
}

impl Spec {
    /// The shader `shaders/<kernel>.wgsl` with nothing set.
    pub fn new(kernel: &'static str, target: Target) -> Spec {
        Spec {
            kernel,
            target,
            flags: Flags::default(),
            constants: BTreeMap::new(),
            aliases: BTreeMap::new(),
            slots: BTreeMap::new(),
            trusted: false,
            inputs_writable: false,
        }
    }

    /// Defines `flag` for `#ifdef`, and enables what it needs.
    #[must_use]
    pub fn flag(mut self, flag: Flag) -> Spec {
        self.flags = self.flags.with(flag);
        self
    }

    /// Adds `const name: TYPE = value;` to the header. A name set twice keeps the later value.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: impl Into<Const>) -> Spec {
        self.constants.insert(name, value.into());
        self
    }

    /// Adds `alias name = wgsl_type;` to the header. A name set twice keeps the later type.
    #[must_use]
    pub fn alias(mut self, name: &'static str, wgsl_type: &'static str) -> Spec {
        self.aliases.insert(name, wgsl_type);
        self
    }

    /// Binds `#import name` to `shaders/lib/<file>.wgsl`.
    #[must_use]
    pub fn slot(mut self, name: &'static str, file: impl Into<String>) -> Spec {
        self.slots.insert(name, file.into());
        self
    }

    /// Compiles natively without bounds checks and loop bounds: the kernel's tests have shown that it stays in bounds.
    #[must_use]
    pub fn trusted(mut self) -> Spec {
        self.trusted = true;
        self
    }

    /// Whether it is compiled without bounds checks.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Compiles with inputs declared `read_write` too. NVIDIA's compiler then issues a round's loads before its products of
    /// matrices and not among them, and saves registers: 6 % of a product of K 4096 in a loop of its own, 3 % of one of K 384 in a plan.
    /// The device then waits between dispatches that share inputs, as it does where one reads what another wrote.
    #[must_use]
    pub fn inputs_writable(mut self) -> Spec {
        self.inputs_writable = true;
        self
    }

    /// Whether inputs are declared `read_write`.
    pub fn has_inputs_writable(&self) -> bool {
        self.inputs_writable
    }

    /// The kernel's name, the stem of its file.
    pub fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// Who compiles the source.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Whether `flag` is defined.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.has(flag)
    }

    /// The WGSL: a header of `enable`, `alias` and `const` lines, then the preprocessed file.
    ///
    /// # Errors
    /// `Unsupported` for a kernel without a file, a float constant that is not finite, and what the preprocessor refuses: an
    /// unknown directive, import or flag, an unbalanced block, a cycle of imports.
    pub fn render(&self) -> Result<String> {
        self.render_from(&library::get)
    }

    /// [`Self::render`] as the device is given it.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub(crate) fn render_to_compile(&self) -> Result<String> {
        let source = self.render()?;
        Ok(if self.inputs_writable { writable(&source) } else { source })
    }

    fn render_from(&self, files: &dyn Fn(&str) -> Option<&'static str>) -> Result<String> {
        let path = format!("{}.wgsl", self.kernel);
        let mut out = self.header()?;
        out += &preprocess(&path, &Inputs { flags: self.flags, slots: &self.slots, files })?;
        Ok(out)
    }

    fn header(&self) -> Result<String> {
        let browser = self.target == Target::Browser;
        // DOT4 needs no line: naga and browsers take `dot4I8Packed` without one.
        let directives = [
            (self.has(Flag::F16), "enable f16;\n"),
            // naga refuses this line, browsers demand it.
            (self.has(Flag::SUBGROUPS) && browser, "enable subgroups;\n"),
            (self.has(Flag::COOP_MATRIX), "enable wgpu_cooperative_matrix;\n"),
            // The browser's analysis is per workgroup where ours is per subgroup, and cannot be told.
            (self.has(Flag::SUBGROUPS) && browser, "diagnostic(off, subgroup_uniformity);\n"),
        ];
        let mut header: String = directives.iter().filter(|(on, _)| *on).map(|(_, line)| *line).collect();
        for (name, wgsl_type) in &self.aliases {
            header += &format!("alias {name} = {wgsl_type};\n");
        }
        for (name, value) in &self.constants {
            header += &match value {
                Const::U32(value) => format!("const {name}: u32 = {value}u;\n"),
                Const::I32(value) => format!("const {name}: i32 = {value};\n"),
                // Debug prints the shortest decimal that reads back as the same bits.
                Const::F32(value) if value.is_finite() => format!("const {name}: f32 = {value:?}f;\n"),
                Const::F32(value) => {
                    let kernel = self.kernel;
                    let message =
                        format!("shader `{kernel}`: constant {name} is {value}; WGSL has finite literals only");
                    return Err(Error::unsupported(message));
                }
                Const::Bool(value) => format!("const {name}: bool = {value};\n"),
            };
        }
        Ok(header)
    }
}

/// The shader with all bindings of tensors writable.
pub(crate) fn writable(source: &str) -> String {
    source.replace("var<storage, read>", "var<storage, read_write>")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn files(path: &str) -> Option<&'static str> {
        match path {
            "k.wgsl" => Some("#import weights\n#ifdef F16\nhalf\n#endif\nbody\n"),
            "lib/weights/q4_k.wgsl" => Some("q4_k\n"),
            _ => None,
        }
    }

    fn render(spec: &Spec) -> String {
        spec.render_from(&files).unwrap()
    }

    #[test]
    fn the_header_is_sorted_and_leads_the_source() {
        let spec = Spec::new("k", Target::Native)
            .constant("ROWS", 4u32)
            .constant("EPSILON", 1e-5f32)
            .constant("CAUSAL", true)
            .constant("SHIFT", -3)
            .constant("LOWEST", i32::MIN)
            .constant("ONE", 1.0f32)
            .alias("T", "f16")
            .alias("ACC", "vec4<f32>")
            .slot("weights", "weights/q4_k")
            .flag(Flag::F16);
        let expected = "enable f16;\nalias ACC = vec4<f32>;\nalias T = f16;\nconst CAUSAL: bool = true;\n\
            const EPSILON: f32 = 1e-5f;\nconst LOWEST: i32 = -2147483648;\nconst ONE: f32 = 1.0f;\n\
            const ROWS: u32 = 4u;\nconst SHIFT: i32 = -3;\nq4_k\nhalf\nbody\n";
        assert_eq!(render(&spec), expected);
    }

    #[test]
    fn enables_follow_flags_and_target() {
        use Flag::{COOP_MATRIX, DOT4, F16, SUBGROUPS};
        let cases: &[(Target, &[Flag], &str)] = &[
            (Target::Native, &[], ""),
            (Target::Browser, &[DOT4], ""),
            (Target::Native, &[SUBGROUPS, DOT4], ""),
            (Target::Browser, &[SUBGROUPS], "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n"),
            (
                Target::Browser,
                &[F16, SUBGROUPS],
                "enable f16;\nenable subgroups;\ndiagnostic(off, subgroup_uniformity);\n",
            ),
            (Target::Native, &[F16, COOP_MATRIX], "enable f16;\nenable wgpu_cooperative_matrix;\n"),
        ];
        for (target, flags, expected) in cases {
            let spec = flags.iter().fold(Spec::new("k", *target), |spec, flag| spec.flag(*flag));
            assert_eq!(spec.header().unwrap(), *expected, "{target:?} {flags:?}");
            for flag in Flag::ALL {
                assert_eq!(spec.has(flag), flags.contains(&flag), "{target:?} {flags:?} {flag:?}");
            }
        }
    }

    #[test]
    fn every_input_is_part_of_the_key() {
        let base = || Spec::new("k", Target::Native).slot("weights", "weights/q4_k");
        let specs = [
            base(),
            Spec::new("j", Target::Native).slot("weights", "weights/q4_k"),
            Spec::new("k", Target::Browser).slot("weights", "weights/q4_k"),
            base().flag(Flag::F16),
            base().constant("A", 1u32),
            base().constant("A", 1),
            base().constant("A", 0.0f32),
            base().constant("A", -0.0f32),
            base().constant("A", true),
            base().constant("B", 1u32),
            base().alias("A", "f32"),
            base().slot("weights", "weights/q6_k"),
            base().trusted(),
            base().inputs_writable(),
        ];
        let keys: HashMap<_, _> = specs.iter().enumerate().map(|(index, spec)| (spec.clone(), index)).collect();
        assert_eq!(keys.len(), specs.len());
        for (index, spec) in specs.iter().enumerate() {
            assert_eq!(keys[spec], index);
        }
        let nan = || base().constant("A", f32::NAN);
        assert_eq!(nan(), nan(), "a key equals itself");
        let order = base().constant("A", 1u32).constant("B", 2u32);
        assert_eq!(order, base().constant("B", 2u32).constant("A", 1u32));
        assert!(base().trusted().is_trusted() && !base().is_trusted());
        assert!(base().inputs_writable().has_inputs_writable() && !base().has_inputs_writable());
    }

    #[test]
    fn errors_name_the_shader() {
        let cases = [
            (Spec::new("gone", Target::Native), "no shader `shaders/gone.wgsl`"),
            (
                Spec::new("k", Target::Native).constant("SCALE", f32::INFINITY),
                "shader `k`: constant SCALE is inf; WGSL has finite literals only",
            ),
            (
                Spec::new("k", Target::Native),
                "shaders/k.wgsl:1: unknown import `weights`: no `shaders/lib/weights.wgsl`, and no slot of []",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(spec.render_from(&files).unwrap_err().to_string(), expected, "{spec:?}");
        }
    }

    #[test]
    fn targets_follow_backends() {
        for profile in Profile::stored() {
            let browser = profile.backend == Backend::Browser;
            assert_eq!(Target::of(&profile) == Target::Browser, browser, "{}", profile.name);
        }
    }
}
