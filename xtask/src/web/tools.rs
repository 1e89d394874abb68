//! Programs that the browser build runs: wasm-bindgen at the version of the library's crate, wasm-pack, and those from npm.

use crate::install;
use crate::run::{self, root};
use crate::web::cache;
use crate::web::rust::Environment;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

/// Version of wasm-pack.
const WASM_PACK: &str = "0.15.1";
/// The oldest Node.js that the packages of `web/package.json` run on.
const NODE_MAJOR: u32 = 18;

/// What the build needs beside Rust: folders for PATH.
///
/// # Errors
/// What to install by hand, or what went wrong.
pub fn set_up() -> Result<Environment, String> {
    node()?;
    let lock = root().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).map_err(|e| format!("{}: {e}", lock.display()))?;
    let wasm_bindgen = locked(&lock, "wasm-bindgen").ok_or("Cargo.lock has no package wasm-bindgen")?;
    let path = [
        // Without TLS, which only a test runner asks for. Its own lock file names a crate version that is no longer there.
        cargo_install("wasm-bindgen-cli", wasm_bindgen, &["--bin", "wasm-bindgen", "--no-default-features"])?,
        cargo_install("wasm-pack", WASM_PACK, &["--locked"])?,
    ];
    Ok(Environment { path: path.map(|folder| folder.join("bin")).into(), variables: Vec::new() })
}

/// Makes sure that Node.js and npm are there.
///
/// # Errors
/// What to install by hand, or what went wrong.
pub fn node() -> Result<(), String> {
    let major = || {
        let version = run::output(Command::new("node").arg("--version")).ok()?;
        run::succeeds(npm_program(), &["--version"]).then_some(())?;
        version.trim().trim_start_matches('v').split('.').next()?.parse::<u32>().ok()
    };
    let found = match major() {
        Some(major) if major >= NODE_MAJOR => return Ok(()),
        Some(major) => format!("Node.js {major}, expected {NODE_MAJOR} or later,"),
        None => "no Node.js with npm".to_owned(),
    };
    let by_hand = format!("install Node.js {NODE_MAJOR} or later with npm (https://nodejs.org)");
    if !install::is_debian() {
        return Err(format!("found {found} on this machine\n{by_hand}"));
    }
    install::debian(&found, &["nodejs", "npm"])?;
    match major() {
        Some(major) if major >= NODE_MAJOR => Ok(()),
        _ => Err(format!("the system's packages have no Node.js {NODE_MAJOR}\n{by_hand}")),
    }
}

/// Makes sure that `folder`, with a `package.json` and a lock file, has the packages that it names.
///
/// # Errors
/// When npm fails.
pub fn npm_packages(folder: &Path) -> Result<(), String> {
    let lock = folder.join("package-lock.json");
    let installed = folder.join("node_modules/.package-lock.json");
    // npm writes its own list last, so a newer one tells that all is there.
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if let (Some(wanted), Some(there)) = (modified(&lock), modified(&installed))
        && there >= wanted
    {
        return Ok(());
    }
    let mut npm = Command::new(npm_program());
    npm.current_dir(folder).stdin(Stdio::null());
    run::status(npm.args(["ci", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"]))
}

fn npm_program() -> &'static str {
    if cfg!(windows) { "npm.cmd" } else { "npm" }
}

/// A program from crates.io in a folder of its own.
fn cargo_install(package: &str, version: &str, arguments: &[&str]) -> Result<PathBuf, String> {
    cache::once(&format!("{package}-{version}"), |folder| {
        eprintln!("xtask: building {package} {version}, once");
        let build = std::env::temp_dir().join(format!("anygpu-{package}-{}", process::id()));
        let mut cargo = Command::new(run::cargo_program());
        // Away from the workspace, whose settings are for itself.
        cargo.current_dir(folder).stdin(Stdio::null());
        cargo.args(["install", package, "--version", &format!("={version}"), "--no-track", "--quiet"]);
        cargo.args(arguments).arg("--root").arg(folder).arg("--target-dir").arg(&build);
        // These run for seconds: optimising them would take longer than they ever save.
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "64").env("CARGO_PROFILE_RELEASE_LTO", "off");
        let done = run::status(&mut cargo);
        // A failure to tidy up is none of the build.
        drop(fs::remove_dir_all(&build));
        done
    })
}

/// The version of `package` in the text of a lock file of cargo's.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let (_, entry) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    entry.split_once('"').map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_version_is_found() {
        let lock = "[[package]]\nname = \"wasm-bindgen-futures\"\nversion = \"0.4.1\"\n\n\
                    [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\nsource = \"x\"\n";
        assert_eq!(locked(lock, "wasm-bindgen"), Some("0.2.130"));
        assert_eq!(locked(lock, "wasm"), None);
    }

    #[test]
    fn the_workspace_has_a_wasm_bindgen() {
        let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
        assert!(locked(&lock, "wasm-bindgen").is_some());
    }
}
