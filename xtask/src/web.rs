//! The browser build: `cargo xtask web`.
//!
//! ```text
//! rust (a compiler for the browser) + tools (wasm-bindgen, wasm-pack, npm's packages)  ->  wasm-pack  ->  assemble.mjs  ->  web/dist
//! ```

mod browser;
mod cache;
mod rust;
mod tools;

use crate::run::{self, Step, root};
use rust::Environment;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const HELP: &str = "\
Builds the npm package and the page into web/dist, after setting up what is missing.

usage: cargo xtask web [--quick]         --quick: without Burn, not optimised and not measured, for a developer's loop
       cargo xtask web --environment     sets up, then prints lines for a shell (eval \"$(cargo xtask web --environment)\"),
                                         after which cargo build --target wasm32-unknown-unknown works

ANYGPU_WASM_TARGET=debian takes the compiler from Debian's packages where rustup has no wasm32-unknown-unknown yet,
ANYGPU_WASM_TARGET=rustup never does. Without it rustup is asked first, unless RUSTUP_AUTO_INSTALL is 0.
";

/// `cargo xtask web ARGUMENTS`.
///
/// # Errors
/// What to install by hand, or what went wrong.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => build(false),
        ["--quick"] => build(true),
        // What the tests need beside the build.
        ["--for-tests"] => browser::set_up().and_then(|()| build(false)),
        ["--environment"] => {
            print!("{}", environment()?.shell());
            Ok(())
        }
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("unknown arguments {}\n\n{HELP}", words.join(" "))),
    }
}

/// The site: what `cargo xtask serve` serves.
pub fn dist() -> PathBuf {
    root().join("web/dist")
}

/// Builds everything into [`dist`].
///
/// # Errors
/// What to install by hand, or what went wrong.
pub fn build(quick: bool) -> Result<(), String> {
    let environment = environment()?;
    let web = root().join("web");
    // A folder of its own: the compiler may be another than that of the rest.
    let target = target_folder()?;
    let pack = |package: &Path, profile: &str, arguments: &[&str]| {
        let mut pack = Command::new("wasm-pack");
        environment.apply(&mut pack)?;
        pack.stdin(Stdio::null()).env("CARGO_TARGET_DIR", &target);
        pack.arg("build").arg(&web).args(["--target", "web", "--mode", "no-install", "--no-opt", "--no-pack"]);
        pack.args(["--profile", profile]).arg("--out-dir").arg(package).args(arguments);
        run::status(&mut pack)
    };
    let (package, burn) = (target.join("package"), target.join("package-burn"));
    pack(&package, if quick { "release" } else { "web" }, &["--", "--locked"])?;
    if !quick {
        let features = ["--out-name", "anygpu_burn", "--", "--locked", "--no-default-features", "--features", "burn"];
        pack(&burn, "web-burn", &features)?;
    }

    let mut assemble = Command::new("node");
    assemble.stdin(Stdio::null()).arg(web.join("assemble.mjs"));
    assemble.arg("--package").arg(&package).arg("--models").arg(root().join("benches/models"));
    if !quick {
        assemble.arg("--burn").arg(&burn);
    }
    assemble.arg("--output").arg(dist()).arg("--cache").arg(target.join("optimised"));
    run::status(assemble.args(quick.then_some("--quick")))
}

/// What `cargo xtask test` does for the browser, each step on its own.
///
/// # Errors
/// When this program does not know its own path, or a folder of tests cannot be read.
pub fn test_steps() -> Result<Vec<Step>, String> {
    let web = root().join("web");
    let mut build = Command::new(std::env::current_exe().map_err(|e| format!("the path of this program: {e}"))?);
    let mut types = Command::new("node");
    types.arg(web.join("node_modules/typescript/bin/tsc")).arg("--project").arg(&web);
    Ok(vec![
        Step::new("browser build", {
            build.args(["web", "--for-tests"]);
            build
        }),
        Step::new("browser types", types),
        Step::new("browser tests", tests(&[])?),
    ])
}

/// Node's test runner on the tests in `web/tests`, or those whose file names have one of `words` in them.
fn tests(words: &[&str]) -> Result<Command, String> {
    let folder = root().join("web/tests");
    let mut files = Vec::new();
    for part in ["lib", "engine", "page"] {
        let part = folder.join(part);
        let entries = fs::read_dir(&part).map_err(|e| format!("{}: {e}", part.display()))?;
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| {
            let path = path.to_string_lossy();
            path.ends_with(".test.mjs") && (words.is_empty() || words.iter().any(|word| path.contains(word)))
        }));
    }
    if files.is_empty() {
        return Err(format!("{}: no tests", folder.display()));
    }
    files.sort();
    let mut node = Command::new("node");
    // One file at a time: a browser that computes on the processor takes all of it.
    node.args(["--test", "--test-concurrency=1", "--test-reporter=spec"]).args(files);
    Ok(node)
}

fn environment() -> Result<Environment, String> {
    let mut environment = rust::set_up()?;
    let tools = tools::set_up()?;
    tools::npm_packages(&root().join("web"))?;
    environment.path.extend(tools.path);
    Ok(environment)
}

/// `web` in the target folder that this program was built into.
fn target_folder() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| format!("the path of this program: {e}"))?;
    let target = program.ancestors().nth(2).ok_or_else(|| format!("{}: in no target folder", program.display()))?;
    Ok(target.join("web"))
}
