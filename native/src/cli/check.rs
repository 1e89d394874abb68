//! `check`: every kernel against its reference on this adapter.

use std::collections::BTreeMap;
use std::io::Write;

use anygpu::ErrorKind;
use anygpu::kernels::{self, testing::Outcome};
use serde_json::{Value, json};

use super::common::{Global, print_json};
use super::failure::{Failure, Result};

#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 1 where a kernel differs from its reference.

Examples:
  anygpu check
  anygpu check --profile webgpu-baseline --filter matmul")]
pub struct Args {
    /// Only cases whose name has this in it
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    let context = global.open().await?;
    let filter = args.filter.as_deref().unwrap_or("");
    let mut cases = kernels::cases_for(context.profile());
    cases.retain(|case| case.name.contains(filter));
    if cases.is_empty() {
        return Err(Failure::error(format!("no case has {filter:?} in its name")));
    }
    let width = cases.iter().map(|case| case.name.chars().count()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    let mut rows: Vec<Value> = Vec::new();
    let mut by_kernel: BTreeMap<&'static str, (usize, usize)> = BTreeMap::new();
    if !global.json {
        writeln!(out, "{}: {}", context.profile().name, context.driver())?;
    }
    for case in &cases {
        let outcome = match case.run(&context, None).await {
            Ok(outcome) => outcome,
            Err(error) if error.kind() == ErrorKind::DeviceLost => return Err(error.into()),
            Err(error) => Outcome { name: case.name.clone(), nmse: f64::NAN, failure: Some(error.to_string()) },
        };
        let failed = outcome.failure.is_some();
        let (count, failures) = by_kernel.entry(case.kernel.name()).or_default();
        *count += 1;
        *failures += usize::from(failed);
        if global.json {
            rows.push(json!({
                "case": outcome.name,
                "kernel": case.kernel.name(),
                "nmse": if outcome.nmse.is_nan() { Value::Null } else { json!(outcome.nmse) },
                "ok": !failed,
                "failure": outcome.failure,
            }));
        } else {
            match &outcome.failure {
                None => writeln!(out, "  {:width$}  ok    NMSE {:.1e}", outcome.name, outcome.nmse)?,
                Some(failure) => writeln!(out, "  {:width$}  FAIL  {failure}", outcome.name)?,
            }
            out.flush()?;
        }
    }
    let failures: usize = by_kernel.values().map(|(_, failures)| failures).sum();
    if global.json {
        drop(out);
        let profile = context.profile();
        print_json(&json!({
            "adapter": profile.name, "driver": context.driver(), "cases": rows, "failures": failures
        }))?;
    } else {
        writeln!(out, "{:20} {:>6} {:>6}", "kernel", "cases", "failed")?;
        for (kernel, (count, failures)) in &by_kernel {
            writeln!(out, "{kernel:20} {count:>6} {failures:>6}")?;
        }
        writeln!(out, "{:20} {:>6} {failures:>6}", "all", cases.len())?;
    }
    if failures > 0 { Err(Failure::Reported) } else { Ok(()) }
}
