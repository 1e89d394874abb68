use super::*;
use crate::shader::library;

const ADD: &str = "
struct Params { rows: u32, scale: f32, shape: vec4<u32>, tail: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // x[M, K]
@group(0) @binding(1) var<storage, read_write> y: array<u32>; // y[M]
@group(0) @binding(15) var<uniform> params: Params;
var<workgroup> used: array<f32, 64>;
var<workgroup> unused: array<f32, 64>;
@compute @workgroup_size(64, 2) fn main(@builtin(local_invocation_index) lane: u32) {
    used[lane & 63u] = x[lane].x * params.scale;
    y[lane] = u32(used[0]) + params.tail;
}
";

fn profile(name: &str) -> Profile {
    Profile::by_name(name).unwrap()
}

#[test]
fn declarations_come_out_as_written() {
    let found = reflect(ADD).unwrap();
    let field = |name: &str, offset, ty: &str, size| Field { name: name.into(), offset, ty: ty.into(), size };
    let params = Layout {
        name: "Params".into(),
        fields: vec![
            field("rows", 0, "u32", 4),
            field("scale", 4, "f32", 4),
            field("shape", 16, "vec4<u32>", 16),
            field("tail", 32, "u32", 4),
        ],
        size: 48,
    };
    let binding = |index, name: &str, access, ty: &str| Binding { index, name: name.into(), access, ty: ty.into() };
    let bindings =
        vec![binding(0, "x", Access::Read, "array<vec4<f32>>"), binding(1, "y", Access::ReadWrite, "array<u32>")];
    let expected = Reflection { params: Some(params), bindings, workgroup_size: [64, 2, 1], workgroup_bytes: 256 };
    assert_eq!(found, expected);
}

#[test]
fn forms_that_are_not_kept_to_are_errors() {
    let cases = [
        ("@group(0) @binding(1)", "@group(0) @binding(2)", "`y` has index 2, expected 1"),
        ("@group(0) @binding(15)", "@group(1) @binding(15)", "params to its binding 15"),
        ("@group(0) @binding(15)", "@group(0) @binding(2)", "params to its binding 15"),
        ("<storage, read> x", "<storage, read_write> x", ""),
        ("fn main", "fn start", "entry point `start`"),
        (
            "@compute @workgroup_size(64, 2) fn main(@builtin(local_invocation_index) lane: u32) {",
            "fn f(lane: u32) {",
            "0 entry points",
        ),
        ("lane & 63u", "lane &", "naga: "),
        ("x[lane].x", "x[lane].xy", "naga"),
        ("params: Params", "params: vec4<u32>", "naga"),
    ];
    for (from, to, expected) in cases {
        assert!(ADD.contains(from), "{from}");
        match reflect(&ADD.replace(from, to)) {
            Err(error) => assert!(error.to_string().contains(expected), "{to}: {error}"),
            Ok(_) => assert_eq!(expected, "", "{to} passed"),
        }
    }
    let order = ADD
        .replace("<storage, read> x", "<storage, read_write> x")
        .replace("<storage, read_write> y: array<u32>; // y[M]", "<storage, read> y: array<u32>;");
    let error = reflect(&order.replace("y[lane] =", "_ =")).unwrap_err().to_string();
    assert!(error.contains("input `y` comes after output `x`"), "{error}");
}

#[test]
fn a_plain_shader_compiles_for_every_profile() {
    for profile in Profile::stored() {
        validate(ADD, &profile).unwrap();
    }
}

/// A shader that does `body` with `x: f32` and the invocation's `lane`.
fn with_body(header: &str, body: &str) -> String {
    format!(
        "{header}@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n\
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32) {{\n\
        let x = y[lane];\n{body}\n}}\n"
    )
}

#[test]
fn what_a_profile_lacks_is_refused() {
    let f16 = with_body("enable f16;\n", "y[lane] = f32(f16(x));");
    let subgroups = with_body("", "y[lane] = subgroupAdd(x);");
    let barrier = with_body("", "y[lane] = subgroupAdd(x); subgroupBarrier();");
    let big = with_body("var<workgroup> big: array<f32, 10240>;\n", "big[lane] = x; y[lane] = big[0];");
    let wide = with_body("", "y[lane] = x;").replace("workgroup_size(64)", "workgroup_size(512)");
    let deep = with_body("", "y[lane] = x;").replace("workgroup_size(64)", "workgroup_size(1, 1, 128)");
    let dot = with_body("", "y[lane] = f32(dot4I8Packed(lane, 3u));");
    let cases: &[(&str, &str, &[&str])] = &[
        ("f16", &f16, &["webgpu-baseline"]),
        ("subgroups", &subgroups, &["webgpu-baseline"]),
        ("a subgroup barrier", &barrier, &["webgpu-baseline", "rdna"]),
        ("40 KiB of workgroup memory", &big, &["webgpu-baseline", "gtx-1660", "m2-max", "intel-igpu", "rdna"]),
        ("512 invocations", &wide, &["webgpu-baseline"]),
        (
            "128 invocations along z",
            &deep,
            &["webgpu-baseline", "gtx-1660", "rtx-3090", "rtx-4090", "a100", "h100", "rdna"],
        ),
        ("integer dot", &dot, &[]),
    ];
    for (what, source, refusing) in cases {
        for profile in Profile::stored() {
            let result = validate(source, &profile);
            let expected = refusing.contains(&profile.name.as_str());
            assert_eq!(result.is_err(), expected, "{what}: {result:?} on {}", profile.name);
            if let Err(error) = result {
                assert!(error.to_string().starts_with(&format!("profile {}: ", profile.name)), "{error}");
            }
        }
    }
}

#[test]
fn storage_buffers_are_counted() {
    let mut source = String::new();
    for index in 0..9 {
        source += &format!("@group(0) @binding({index}) var<storage, read_write> b{index}: array<f32>;\n");
    }
    source += "@compute @workgroup_size(1) fn main() { b0[0] = 1.0; }";
    validate(&source, &profile("h100")).unwrap();
    let error = validate(&source, &profile("webgpu-baseline")).unwrap_err().to_string();
    assert_eq!(error, "profile webgpu-baseline: limits: 9 storage buffers, at most 8");
}

#[test]
fn cooperative_matrices_match_the_shapes_of_the_profile() {
    let source = |size: u32, ab: &str, acc: &str| {
        format!(
            "enable f16;\nenable wgpu_cooperative_matrix;\n\
            @group(0) @binding(0) var<storage, read> a: array<{ab}>;\n\
            @group(0) @binding(1) var<storage, read_write> c: array<{acc}>;\n\
            @compute @workgroup_size(32) fn main() {{\n\
            let a_tile = coopLoadT<coop_mat{size}x{size}<{ab}, A>>(&a[0], {size}u);\n\
            let b_tile = coopLoadT<coop_mat{size}x{size}<{ab}, B>>(&a[0], {size}u);\n\
            let c_tile = coopLoadT<coop_mat{size}x{size}<{acc}, C>>(&c[0], {size}u);\n\
            coopStoreT(coopMultiplyAdd(a_tile, b_tile, c_tile), &c[0], {size}u);\n}}\n"
        )
    };
    let nvidia: &[&str] = &["rtx-3090", "rtx-4090", "a100", "h100"];
    let cases: &[(u32, &str, &str, &[&str])] = &[
        (16, "f16", "f32", nvidia),
        (16, "f16", "f16", nvidia),
        (8, "f16", "f16", &["m2-max"]),
        (8, "f32", "f32", &["m2-max"]),
    ];
    for (size, ab, acc, taking) in cases {
        for profile in Profile::stored() {
            let result = validate(&source(*size, ab, acc), &profile);
            let expected = taking.contains(&profile.name.as_str());
            assert_eq!(result.is_ok(), expected, "{size} {ab} {acc} on {}: {result:?}", profile.name);
        }
    }
}

#[test]
fn tint_is_asked_for_browsers() {
    if Command::new("tint").arg("--help").output().is_err() {
        return;
    }
    // naga does not follow whether a storage buffer's value is uniform.
    let source = with_body("", "if (x > 0.0) { workgroupBarrier(); }\ny[lane] = x;");
    assert!(run_tint(&source).unwrap_err().to_string().starts_with("tint: "));
    let subgroups = with_body(
        "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n",
        "if (x > 0.0) { y[lane] = subgroupAdd(x); }",
    );
    let mut browser = profile("webgpu-baseline");
    assert!(validate(&subgroups, &browser).is_err(), "a browser without subgroups");
    browser.features.subgroups = true;
    validate(&subgroups, &browser).unwrap();
}

/// The library files that stand alone, for every profile, with and without what is optional.
#[test]
fn library_files_compile() {
    use crate::shader::preprocess::{Inputs, preprocess};
    use crate::shader::{Flag, Flags};
    let body = "#import reduce\n#import half\n\
        @group(0) @binding(0) var<storage, read_write> y: array<f32>;\n\
        @compute @workgroup_size(WORKGROUP) fn main(@builtin(local_invocation_index) lane: u32) {\n\
        let a = reduce_sum(y[lane], lane);\nlet b = reduce_max(y[lane], lane);\n\
        y[lane] = a + b + half_at(half_pack(vec2(a, b)), lane) + half_unpack4(half_pack4(vec4(a))).y;\n}\n";
    for profile in Profile::stored() {
        for subgroups in [false, true] {
            if subgroups && !profile.features.subgroups {
                continue;
            }
            for workgroup in [1, 32, 256] {
                let flags: Flags = subgroups.then_some(Flag::SUBGROUPS).into_iter().collect();
                let files = |path: &str| if path == "test.wgsl" { Some(body) } else { library::get(path) };
                let inputs = Inputs { flags, slots: &Default::default(), files: &files };
                let text = preprocess("test.wgsl", &inputs).unwrap();
                validate(&format!("const WORKGROUP: u32 = {workgroup}u;\n{text}"), &profile).unwrap();
            }
        }
    }
}

#[test]
fn every_binding_line_ends_in_its_shape() {
    let missing: Vec<_> = library::paths()
        .flat_map(|path| {
            let lines = lines_without_shape(library::get(path).unwrap_or_default());
            lines.into_iter().map(move |(number, line)| format!("shaders/{path}:{number}: {line}"))
        })
        .collect();
    assert!(missing.is_empty(), "bindings without a shape comment such as `// x[M, K]`:\n{}", missing.join("\n"));

    let cases = [
        ("@group(0) @binding(0) var<storage, read> x: array<f32>; // x[M, K]", true),
        ("@group(0) @binding(0) var<storage, read_write> w: array<u32>; // w[N, K / 2]: two halves a word", true),
        ("@group(0) @binding(15) var<uniform> params: Params;", true),
        ("@group(0) @binding(0) var<storage, read> x: array<f32>;", false),
        ("@group(0) @binding(0) var<storage, read> x: array<f32>; // the input", false),
        ("@group(0) @binding(0) var<storage, read> x: array<f32>; // y[M, K]", false),
        ("@group(0) @binding(0) var<storage, read> x: array<f32>; // x[]", false),
    ];
    for (line, fine) in cases {
        assert_eq!(lines_without_shape(line).is_empty(), fine, "{line}");
    }
}
