//! `shaders`: the specialised sources of a kernel.

use std::collections::BTreeMap;
use std::io::Write;

use anygpu::kernels;
use anygpu::profile::Profile;
use serde_json::{Value, json};

use super::common::{Global, note, print_json};
use super::failure::{Failure, Result};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "The device is the adapter's, or a stored profile's where --profile names one; that needs no adapter.

Examples:
  anygpu shaders --list
  anygpu shaders matvec --profile h100 --filter q4_0"
)]
pub struct Args {
    /// The kernel
    #[arg(required_unless_present = "list")]
    kernel: Option<String>,
    /// Only cases whose name has this in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// List the kernels and how many different sources each has
    #[arg(long)]
    list: bool,
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    let profile = match global.stored_profile()? {
        Some(stored) => stored,
        None => match global.find_adapter().await {
            Ok(adapter) => adapter.profile().clone(),
            Err(_) => {
                note("[no adapter found; taking the profile webgpu-baseline]");
                Profile::by_name("webgpu-baseline")?
            }
        },
    };
    // Kernel, then source, then the cases that have it.
    let mut kernels: BTreeMap<&'static str, Vec<(String, Vec<String>)>> = BTreeMap::new();
    for case in kernels::cases() {
        let name = case.kernel.name();
        let wanted = args.list || args.kernel.as_deref() == Some(name);
        let sources = kernels.entry(name).or_default();
        if !wanted || !case.name.contains(&args.filter) {
            continue;
        }
        let source = case.kernel.spec(&profile).render()?;
        match sources.iter_mut().find(|(other, _)| *other == source) {
            Some((_, cases)) => cases.push(case.name),
            None => sources.push((source, vec![case.name])),
        }
    }
    let mut out = std::io::stdout().lock();
    if args.list {
        if global.json {
            drop(out);
            let counts: BTreeMap<_, _> = kernels.iter().map(|(kernel, sources)| (kernel, sources.len())).collect();
            return print_json(&json!({ "profile": profile.name, "kernels": counts }));
        }
        for (kernel, sources) in &kernels {
            writeln!(out, "{kernel:20} {:>4} sources", sources.len())?;
        }
        return Ok(());
    }
    let kernel = args.kernel.as_deref().unwrap_or_default();
    let Some(sources) = kernels.get(kernel) else {
        let names: Vec<_> = kernels.keys().copied().collect();
        return Err(Failure::error(format!("kernel {kernel:?}: expected one of {}", names.join(", "))));
    };
    if sources.is_empty() {
        return Err(Failure::error(format!("no case of {kernel} has {:?} in its name", args.filter)));
    }
    if global.json {
        drop(out);
        let list: Vec<Value> =
            sources.iter().map(|(source, cases)| json!({ "cases": cases, "source": source })).collect();
        return print_json(&json!({ "kernel": kernel, "profile": profile.name, "sources": list }));
    }
    for (source, cases) in sources {
        writeln!(out, "// {kernel} for {}", profile.name)?;
        for case in cases {
            writeln!(out, "// case: {case}")?;
        }
        writeln!(out, "{source}")?;
    }
    Ok(())
}
