//! What the repository may not hold, and what the library may not depend on.

use crate::run::{self, cargo, root};
use std::path::Path;
use std::process::Command;

/// The largest file of the repository.
const LARGEST_BYTES: u64 = 1 << 20;
/// The shipped model is allowed more.
const LARGEST_MODEL_BYTES: u64 = 12_000_000;

/// Packages that the library must not pull in without features.
const KEPT_OUT: [&str; 5] = ["burn", "cubecl", "clap", "indicatif", "anyhow"];

/// All checks, each with all that it finds.
///
/// # Errors
/// Everything that was found.
pub fn all() -> Result<(), String> {
    let found = [files()?, dependencies()?].concat();
    if found.is_empty() {
        eprintln!("checks: ok");
        return Ok(());
    }
    Err(format!("checks:\n  {}", found.join("\n  ")))
}

fn files() -> Result<Vec<String>, String> {
    let root = root();
    let list = run::output(Command::new("git").current_dir(&root).args(["ls-files", "-z"]))?;
    let mut found = Vec::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        let path = root.join(name);
        // A file that was removed but not yet committed so is still listed.
        let Ok(size) = path.metadata().map(|m| m.len()) else { continue };
        found.extend(too_large(name, size));
        if is_ours(name)
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            found.extend(private_paths(name, &text));
        }
    }
    Ok(found)
}

fn too_large(name: &str, bytes: u64) -> Option<String> {
    let is_model = name.starts_with("benches/models/") && name.ends_with(".gguf");
    let limit = if is_model { LARGEST_MODEL_BYTES } else { LARGEST_BYTES };
    (bytes > limit).then(|| format!("{name}: {bytes} bytes, expected at most {limit}"))
}

/// Files that we wrote: text that a model reads is full of other people's paths.
fn is_ours(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["rs", "toml", "md", "wgsl", "py", "sh", "json", "html", "css", "js", "mjs", "ts", "svg", "yml"]
        .contains(&extension)
        || name.starts_with(".ci/")
}

/// Lines with an absolute path into somebody's home folder.
fn private_paths(name: &str, text: &str) -> Vec<String> {
    // Put together here, or this file would find itself.
    let homes = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!(r"C:\Us", r"ers\")];
    (text.lines().enumerate())
        .filter_map(|(i, line)| {
            let home = homes.iter().find(|home| {
                line.match_indices(**home).any(|(at, _)| {
                    // `https://host/home/` and `a/root/b` are no paths of a machine.
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~}".contains(c))
                })
            })?;
            Some(format!("{name}:{}: names a private path, {home}…", i + 1))
        })
        .collect()
}

fn dependencies() -> Result<Vec<String>, String> {
    let arguments = ["tree", "--package", "anygpu", "--edges", "normal", "--target", "all", "--prefix", "none"];
    Ok(kept_out(&run::output(&mut cargo(&arguments))?))
}

fn kept_out(tree: &str) -> Vec<String> {
    let mut names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_unstable();
    names.dedup();
    let is_kept_out = |name: &&str| KEPT_OUT.iter().any(|k| name == k || name.starts_with(&format!("{k}-")));
    names.into_iter().filter(is_kept_out).map(|name| format!("anygpu depends on {name} without any feature")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (name, bytes, fails) in [
            ("src/lib.rs", 1 << 20, false),
            ("src/lib.rs", (1 << 20) + 1, true),
            ("benches/models/small.gguf", 11_000_000, false),
            ("benches/models/small.gguf", 12_000_001, true),
            ("benches/models/text.txt", 2 << 20, true),
        ] {
            assert_eq!(too_large(name, bytes).is_some(), fails, "{name} {bytes}");
        }
    }

    #[test]
    fn private_paths_are_found() {
        let home = concat!("/ho", "me/");
        for (line, fails) in [
            (format!("open {home}me/x"), true),
            (format!("\"{home}me/x\""), true),
            (format!("https://example.org{home}"), false),
            ("$HOME/.cache".to_owned(), false),
            (format!("{}x", concat!(r"C:\Us", r"ers\")), true),
        ] {
            assert_eq!(!private_paths("f", &line).is_empty(), fails, "{line}");
        }
    }

    #[test]
    fn unwanted_dependencies_are_found() {
        let tree = "anygpu v0.1.0\nclap v4.5.0\nclap v4.5.0 (*)\nburn-wgpu v0.22.1\nburnish v1.0.0\nserde v1.0.0\n";
        assert_eq!(
            kept_out(tree),
            ["anygpu depends on burn-wgpu without any feature", "anygpu depends on clap without any feature"]
        );
    }
}
