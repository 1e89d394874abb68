//! The build script: writes the table of all WGSL files below `shaders/`, so that no list of them is kept by hand.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("shaders");
    println!("cargo::rerun-if-changed=shaders");
    println!("cargo::rerun-if-changed=src/shader/embed.rs");
    let mut paths = Vec::new();
    walk(&root, "", &mut paths)?;
    // A sorted table, because it is searched by bisection and because directory order differs between machines.
    paths.sort();
    let mut table = String::from("&[\n");
    for path in &paths {
        table +=
            &format!("    ({path:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/shaders/{path}\"))),\n");
    }
    table += "]\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("shaders.rs");
    fs::write(out, table)
}

/// Adds the WGSL files of `folder`, named relative to `shaders/` with `/` on every platform.
fn walk(folder: &Path, prefix: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| io::Error::other(format!("{name:?} in {folder:?} is not UTF-8")))?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{prefix}{name}/"), paths)?;
        } else if name.ends_with(".wgsl") {
            paths.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}
