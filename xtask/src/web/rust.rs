//! A Rust that compiles to `wasm32-unknown-unknown`: the one in use if it has the target, else Debian's packages where
//! told or where rustup may not download, else the target from rustup.

use crate::install;
use crate::run;
use crate::web::cache;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The one target of the browser.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Variable that says where the target comes from: `debian` or `rustup`.
pub const SOURCE: &str = "ANYGPU_WASM_TARGET";

/// Debian's packages: a compiler, the sources of its standard library, the host's, cargo, and a linker.
const DEBIAN: [&str; 5] = ["rustc-web", "rust-web-src", "libstd-rust-web-dev", "cargo-web", "lld-19"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LINKER: &str = "wasm-ld-19";

/// What a command needs to find programs of the browser build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Folders that stand first on PATH.
    pub path: Vec<PathBuf>,
    /// Variables beside it.
    pub variables: Vec<(String, OsString)>,
}

impl Environment {
    /// Runs `command` in this environment.
    pub fn apply(&self, command: &mut Command) -> Result<(), String> {
        command.env("PATH", self.joined()?);
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        // What the cargo that runs us said about itself: another cargo asks PATH.
        for name in ["CARGO", "RUSTC", "RUSTDOC"] {
            command.env_remove(name);
        }
        Ok(())
    }

    /// Lines for a POSIX shell that set it.
    pub fn shell(&self) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut lines = String::new();
        for folder in self.path.iter().rev() {
            lines.push_str(&format!("export PATH={}:\"$PATH\"\n", quote(&folder.to_string_lossy())));
        }
        for (name, value) in &self.variables {
            lines.push_str(&format!("export {name}={}\n", quote(&value.to_string_lossy())));
        }
        lines
    }

    fn joined(&self) -> Result<OsString, String> {
        let rest = env::var_os("PATH").unwrap_or_default();
        let all = self.path.iter().cloned().chain(env::split_paths(&rest));
        env::join_paths(all).map_err(|e| format!("PATH: {e}"))
    }
}

/// Sets up what is missing.
///
/// # Errors
/// What to install by hand, or what went wrong.
pub fn set_up() -> Result<Environment, String> {
    if has_target("rustc") {
        return Ok(Environment::default());
    }
    let told = env::var(SOURCE).unwrap_or_default();
    match told.as_str() {
        "debian" => return debian(),
        "rustup" | "" => {}
        other => return Err(format!("{SOURCE} is {other:?}, expected \"debian\" or \"rustup\"")),
    }
    // Who forbids rustup to install by itself does not want it to do so here.
    if told.is_empty() && env::var("RUSTUP_AUTO_INSTALL").is_ok_and(|value| value == "0") {
        return debian();
    }
    eprintln!("xtask: found no {TARGET}: adding it");
    let added = run::status(Command::new("rustup").args(["target", "add", TARGET]).stdin(Stdio::null()));
    match added {
        Ok(()) if has_target("rustc") => Ok(Environment::default()),
        Ok(()) => Err(format!("rustup added {TARGET} to another toolchain than the rustc on PATH")),
        Err(message) if told.is_empty() && install::is_debian() => {
            eprintln!("xtask: {message}; trying Debian's packages");
            debian()
        }
        Err(message) => Err(format!("{message}\ninstall the Rust target {TARGET} (rustup target add {TARGET})")),
    }
}

fn has_target(rustc: &str) -> bool {
    let folder = run::output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]));
    let entries = folder.ok().and_then(|folder| fs::read_dir(folder.trim()).ok());
    entries.into_iter().flatten().flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Debian's compiler with a standard library built from Debian's sources.
fn debian() -> Result<Environment, String> {
    let there = || {
        let library = host_library(Path::new("/usr")).is_ok_and(|folder| folder.is_dir());
        library
            && Path::new("/usr/lib/rustlib/src").exists()
            && [DEBIAN_CARGO, "/usr/bin/wasm-ld-19"].iter().all(|file| Path::new(file).exists())
    };
    if !there() {
        install::debian(&format!("no {TARGET} and no rustup to add it"), &DEBIAN)?;
    }
    let version = run::output(Command::new(DEBIAN_RUSTC).arg("-vV"))?;
    let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let name = format!("sysroot-{}-{}", field("release:"), field("commit-hash:").get(..8).unwrap_or("unknown"));
    let sysroot = cache::once(&name, |folder| sysroot(folder, &cache::folder()?.join(&name)))?;
    Ok(Environment {
        path: vec![sysroot.join("bin")],
        variables: vec![(
            format!("CARGO_TARGET_{}_LINKER", TARGET.to_uppercase().replace('-', "_")),
            DEBIAN_LINKER.into(),
        )],
    })
}

/// Builds the standard library for the browser into `folder`, which will be called `name`, and links the host's beside it.
fn sysroot(folder: &Path, name: &Path) -> Result<(), String> {
    eprintln!("xtask: building the standard library for {TARGET}, once");
    let build = folder.join("build");
    let write = |path: &Path, text: &str| {
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).and_then(|()| fs::write(path, text)).map_err(|e| format!("{}: {e}", path.display()))
    };
    write(&build.join("src/lib.rs"), "")?;
    write(&build.join("Cargo.toml"), STD_MANIFEST)?;
    let mut cargo = Command::new(DEBIAN_CARGO);
    cargo.current_dir(&build).stdin(Stdio::null());
    cargo.args(["build", "--release", "-Zbuild-std=std,panic_abort,proc_macro,test", "--target", TARGET]);
    cargo.args(["--target-dir", "target"]);
    // Bitcode, so that link-time optimisation reaches into it; the other flag is how rustc's own build marks these crates.
    cargo.env("RUSTFLAGS", "-Cembed-bitcode=yes -Zforce-unstable-if-unmarked");
    cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    for variable in ["CARGO_ENCODED_RUSTFLAGS", "CARGO", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"] {
        cargo.env_remove(variable);
    }
    run::status(&mut cargo)?;

    let built = build.join("target").join(TARGET).join("release/deps");
    let library = folder.join("lib/rustlib").join(TARGET).join("lib");
    let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(&library).map_err(|e| failed(&library, e))?;
    let mut copied = 0;
    for entry in fs::read_dir(&built).map_err(|e| failed(&built, e))? {
        let entry = entry.map_err(|e| failed(&built, e))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.ends_with(".rlib") && !file.starts_with("libstdbuild") {
            fs::copy(entry.path(), library.join(&file)).map_err(|e| failed(&entry.path(), e))?;
            copied += 1;
        }
    }
    if copied == 0 {
        return Err(format!("{}: no library was built", built.display()));
    }
    fs::remove_dir_all(&build).map_err(|e| failed(&build, e))?;

    // Build scripts and procedural macros run on the host, from the same sysroot.
    let real = run::output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
    let host = host_library(Path::new(real.trim()))?;
    link(&host, &folder.join("lib/rustlib").join(host.file_name().unwrap_or_default()))?;
    let wrapper = format!("#!/bin/sh\nexec {DEBIAN_RUSTC} --sysroot '{}' \"$@\"\n", name.display());
    program(&folder.join("bin/rustc"), &wrapper)?;
    program(&folder.join("bin/cargo"), &format!("#!/bin/sh\nexec {DEBIAN_CARGO} \"$@\"\n"))
}

const STD_MANIFEST: &str = "\
[package]
name = \"stdbuild\"
version = \"0.0.0\"
edition = \"2021\"
[workspace]
[profile.release]
opt-level = 3
codegen-units = 1
";

/// The folder of the host's own standard library.
fn host_library(sysroot: &Path) -> Result<PathBuf, String> {
    let version = run::output(Command::new(DEBIAN_RUSTC).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(sysroot.join("lib/rustlib").join(host.ok_or("rustc -vV names no host")?))
}

#[cfg(unix)]
fn link(to: &Path, from: &Path) -> Result<(), String> {
    std::os::unix::fs::symlink(to, from).map_err(|e| format!("{}: {e}", from.display()))
}

#[cfg(not(unix))]
fn link(_: &Path, from: &Path) -> Result<(), String> {
    Err(format!("{}: Debian's packages are for Debian", from.display()))
}

#[cfg(unix)]
fn program(path: &Path, text: &str) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().unwrap_or(path);
    (fs::create_dir_all(folder))
        .and_then(|()| fs::write(path, text))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(not(unix))]
fn program(path: &Path, _: &str) -> Result<(), String> {
    Err(format!("{}: Debian's packages are for Debian", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_the_same_for_a_command_and_for_a_shell() {
        let environment = Environment {
            path: vec!["/first it's".into(), "/second".into()],
            variables: vec![("LINKER".into(), "wasm-ld".into())],
        };
        let shown = "printf '%s %s' \"${PATH%%:/second*}\" \"$LINKER\"";
        let mut command = Command::new("/bin/sh");
        environment.apply(command.args(["-c", shown])).unwrap();
        let script = format!("{}{shown}", environment.shell());
        if cfg!(unix) {
            assert_eq!(run::output(&mut command).unwrap(), "/first it's wasm-ld");
            assert_eq!(run::output(Command::new("/bin/sh").args(["-c", &script])).unwrap(), "/first it's wasm-ld");
        }
    }
}
