//! Running programs: cargo in this workspace, and a list of steps with a summary.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One step of a list.
pub struct Step {
    name: &'static str,
    command: Command,
}

impl Step {
    /// A step that runs `command`.
    pub fn new(name: &'static str, command: Command) -> Self {
        Self { name, command }
    }
}

/// The workspace's root folder.
pub fn root() -> PathBuf {
    // Cargo names the folder when it runs us; the one of the build serves when somebody starts the program by hand.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut root = PathBuf::from(package);
    root.pop();
    root
}

/// The cargo that runs us, on this workspace, in the folder of the caller, so that paths in arguments mean what they say.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo_program());
    // The subcommand comes first, the manifest right behind it.
    let (subcommand, rest) = arguments.split_at(arguments.len().min(1));
    command.args(subcommand).arg("--manifest-path").arg(root().join("Cargo.toml")).args(rest);
    // What cargo told this program about itself is nothing that a nested cargo should hear.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// The cargo that runs us.
pub fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs `command` on the terminal of the caller. The error names it and its exit status.
pub fn status(command: &mut Command) -> Result<(), String> {
    let shown = show(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(e) => Err(format!("{shown}: cannot start: {e}")),
    }
}

/// What `command` prints. The error names it, its exit status and the end of its stderr.
pub fn output(command: &mut Command) -> Result<String, String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{shown}: cannot start: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown}: {}\n{}", output.status, stderr.trim_end()))
}

/// Whether a program is there and succeeds, without a word on the terminal.
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs all `steps`, the later ones even after a failure, and sums up. The error names those that failed.
pub fn steps(steps: Vec<Step>) -> Result<(), String> {
    let mut done: Vec<(&str, Duration, Result<(), String>)> = Vec::new();
    for mut step in steps {
        eprintln!("\n== {}: {}", step.name, show(&step.command));
        let start = Instant::now();
        let result = status(&mut step.command);
        done.push((step.name, start.elapsed(), result));
    }
    eprintln!("\n== summary");
    for (name, time, result) in &done {
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        eprintln!("{name:<16}{verdict:<8}{:>8.1} s", time.as_secs_f64());
    }
    let failed: Vec<&str> = done.iter().filter(|(_, _, result)| result.is_err()).map(|(name, ..)| *name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn show(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let mut words = vec![name];
    let mut arguments = command.get_args();
    while let Some(argument) = arguments.next() {
        // Always this workspace's; it only makes the line long.
        if argument == "--manifest-path" {
            arguments.next();
        } else {
            words.push(argument.to_string_lossy().into_owned());
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn cargo_runs_on_this_workspace() {
        let command = cargo(&["test", "--release"]);
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert_eq!(arguments[0], "test");
        assert_eq!(arguments[1], "--manifest-path");
        assert_eq!(arguments[3], "--release");
        assert!(show(&command).ends_with(" test --release"), "{}", show(&command));
    }

    #[test]
    fn a_failed_step_is_named_and_the_rest_still_run() {
        let with = |argument: &str| {
            let mut command = Command::new(cargo_program());
            command.arg(argument);
            command
        };
        let (version, fails) = (|| with("version"), || with("no-such-subcommand"));
        let error = steps(vec![Step::new("a", fails()), Step::new("b", version()), Step::new("c", fails())]);
        assert_eq!(error, Err("failed: a, c".to_owned()));
        assert_eq!(steps(vec![Step::new("b", version())]), Ok(()));
    }
}
