//! Holds the code against the order of modules: what a module uses lies above it in [`MODULES`]. Tests are exempt.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The modules of the crate, each with what lies above it to use. A new module takes its place here.
const MODULES: &[&str] = &[
    "error",
    "dtype",
    "format",
    "quant",
    "layout",
    "rope",
    "tokenizer",
    "chat",
    "profile",
    "shader",
    "gpu",
    "tensor",
    "kernels",
    "plan",
    "trial",
    "models",
    "generate",
    "scheduler",
    "embed",
    "search",
    "pipeline",
];

/// Modules that serve tests and may use everything.
const EXEMPT: &[&str] = &["architecture", "fuzzing"];

/// Where wgpu is spoken: a path is allowed by its beginning. A model never touches wgpu, and a kernel's test harness does.
const WGPU: &[&str] =
    &["gpu", "plan", "kernels/testing.rs", "models/burn_kernels", "models/llama/burn", "models/bert/burn"];

/// The path below `src/` and the text of a source file.
struct File {
    path: String,
    text: String,
}

impl File {
    /// The top-level module that it belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Its lines without comments, with numbers, up to its tests.
    fn code(&self) -> Vec<(usize, &str)> {
        let lines: Vec<_> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod tests"));
        let lines = lines.into_iter().take(tests.unwrap_or(usize::MAX)).enumerate();
        lines.map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default())).collect()
    }
}

fn read(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &format!("{path}/"), files);
        } else if path.ends_with(".rs") {
            files.push(File { text: fs::read_to_string(entry.path()).unwrap(), path });
        }
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The names after each `crate::` of the lines, with their line: `use crate::{a::{b, c}, d};` names `a` and `d`.
fn crate_names(code: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, (number, line)) in code.iter().enumerate() {
        for (start, found) in line.match_indices("crate::") {
            if line[..start].ends_with(is_name) {
                continue;
            }
            let rest = &line[start + found.len()..];
            // A list in braces may go on in the lines that follow.
            let following = code[at + 1..].iter().flat_map(|(_, line)| ["\n", line]);
            let text: String =
                if rest.starts_with('{') { [rest].into_iter().chain(following).collect() } else { rest.into() };
            let (mut depth, mut name) = (0, String::new());
            for character in text.chars() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                let list = text.starts_with('{');
                let ended = if list { depth <= 1 && matches!(character, ',' | '}') } else { !is_name(character) };
                if ended {
                    let first: String = name.trim().chars().take_while(|character| is_name(*character)).collect();
                    names.extend((!first.is_empty()).then_some((*number, first)));
                    name.clear();
                    if !list || depth == 0 {
                        break;
                    }
                } else if !(list && depth <= 1 && character == '{') {
                    name.push(character);
                }
            }
            names.extend((!text.starts_with('{') && text.chars().all(is_name)).then(|| (*number, text.clone())));
        }
    }
    names
}

/// What lies at the crate's root without being a module: re-exports of lib.rs, and exported macros.
fn root_names(files: &[File]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for file in files {
        let lines: Vec<_> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let name = line.trim().strip_prefix("macro_rules! ");
            if let Some(name) =
                name.filter(|_| lines[..at].iter().rev().take(3).any(|line| line.contains("macro_export")))
            {
                let name = name.chars().take_while(|character| is_name(*character)).collect();
                names.insert(name, file.module().to_owned());
            }
        }
        if file.path == "lib.rs" {
            for statement in file.text.split(';').filter_map(|text| text.trim().strip_prefix("pub use ")) {
                let (module, list) = statement.split_once("::").expect("a re-export names its module");
                for name in list.split(|character| !is_name(character)).filter(|name| !name.is_empty()) {
                    names.insert(name.to_owned(), module.to_owned());
                }
            }
        }
    }
    names
}

fn violations(files: &[File]) -> Vec<String> {
    let root = root_names(files);
    let rank = |module: &str| MODULES.iter().position(|name| *name == module);
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path != "lib.rs" && !EXEMPT.contains(&file.module())) {
        if file.path.ends_with("tests.rs") || file.path.contains("/tests/") || file.path.starts_with("testdata/") {
            continue;
        }
        let Some(own) = rank(file.module()) else {
            found.push(format!("src/{}: module `{}` has no place in the order of modules", file.path, file.module()));
            continue;
        };
        let code = file.code();
        for (line, name) in crate_names(&code) {
            let module = root.get(&name).unwrap_or(&name);
            match rank(module) {
                Some(used) if used <= own => {}
                Some(_) => found.push(format!(
                    "src/{}:{line}: `{}` uses `{module}`, which lies below it",
                    file.path,
                    file.module()
                )),
                None => found.push(format!("src/{}:{line}: `crate::{name}` is of no module in the order", file.path)),
            }
        }
        if !WGPU.iter().any(|allowed| file.path.starts_with(allowed)) {
            let lines = code.iter().filter(|(_, line)| line.contains("wgpu::"));
            found.extend(
                lines.map(|(line, _)| format!("src/{}:{line}: only {} speak to wgpu", file.path, WGPU.join(", "))),
            );
        }
    }
    found
}

#[test]
fn modules_use_only_modules_above_them() {
    let mut files = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    assert!(files.len() > 10, "the walk found {} files", files.len());
    let found = violations(&files);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn violations_are_found() {
    let lib = "pub mod error;\npub use dtype::DType;\npub use error::{Error, Result};\n";
    let cases: &[(&str, &str, &[&str])] = &[
        ("gpu/buffer.rs", "use crate::error::Result;\nuse crate::{DType, Error};\nuse wgpu::Buffer;", &[]),
        ("gpu.rs", "use crate::tensor::Tensor;", &["src/gpu.rs:1: `gpu` uses `tensor`, which lies below it"]),
        ("gpu.rs", "// crate::tensor\n/// [`crate::models`]\nfn f() {}", &[]),
        ("gpu.rs", "fn f() {\n    crate::plan::g();\n}", &["src/gpu.rs:2: `gpu` uses `plan`, which lies below it"]),
        (
            "gpu.rs",
            "use crate::{\n    error::{Error, Result},\n    models::{llama, plan},\n    shader,\n};",
            &["src/gpu.rs:1: `gpu` uses `models`, which lies below it"],
        ),
        ("gpu.rs", "use crate::params;", &["src/gpu.rs:1: `gpu` uses `kernels`, which lies below it"]),
        ("models/llama.rs", "use crate::params;\nuse crate::models::rope;", &[]),
        ("gpu.rs", "x\n#[cfg(test)]\nmod tests {\n    use crate::plan;\n}", &[]),
        ("gpu/tests.rs", "use crate::plan;", &[]),
        ("fuzzing.rs", "use crate::plan;", &[]),
        ("gpu.rs", "use crate::Gone;", &["src/gpu.rs:1: `crate::Gone` is of no module in the order"]),
        ("gpu.rs", "use other_crate::plan;", &[]),
        ("stray.rs", "", &["src/stray.rs: module `stray` has no place in the order of modules"]),
        ("models/llama.rs", "fn f(x: wgpu::Buffer) {}", &["src/models/llama.rs:1: only gpu, plan, "]),
    ];
    for (path, text, expected) in cases {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let macros = file("kernels/kernel.rs", "#[macro_export]\nmacro_rules! params {\n");
        let found = violations(&[file("lib.rs", lib), macros, file(path, text)]);
        assert_eq!(found.len(), expected.len(), "{path}: {text}: {found:?}");
        for (found, expected) in found.iter().zip(*expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }
}
