//! Set-up, builds and checks: `cargo xtask bench | test | web | serve | checks | ci`.
//!
//! ```text
//! bench, test -> driver (is there an adapter? else install one) -> cargo
//! ci          -> test, then checks of the repository itself
//! ```

mod burn;
mod checks;
mod driver;
mod install;
mod python;
mod run;
mod serve;
mod web;

use run::{Step, cargo};
use std::process::ExitCode;

const HELP: &str = "\
Sets up a fresh machine for anygpu, then does the work.

usage: cargo xtask COMMAND [ARGUMENTS]

  bench [ARGUMENTS]   run the benchmark (arguments: cargo xtask bench --help)
  test [ARGUMENTS]    format, lints, all tests, documentation, the tests of the Burn modules, then the browser build in a
                      browser; with arguments only `cargo test --workspace ARGUMENTS`
  web [--quick]       build the npm package and the page into web/dist (more: cargo xtask web --help)
  serve [FOLDER]      serve web/dist with the headers that it needs (more: cargo xtask serve --help)
  checks              what the repository may not hold, and what the library may not depend on
  ci                  test, then checks

On Linux without a Vulkan adapter, bench and test install Mesa's software driver first (Debian and Ubuntu, as root or
with sudo), or say what to install. macOS and Windows need no set-up for bench. The browser's tests need Node.js and
Chrome or Chromium, which test installs on Debian and Ubuntu.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", [].as_slice()),
    };
    let done = match command {
        "bench" => bench(rest),
        "test" => test(rest),
        "web" => web::run(rest),
        "serve" => serve::run(rest, web::dist()),
        "checks" => checks::all(),
        // Both run, so that one push tells everything that is wrong.
        "ci" => test(&[]).and(checks::all()),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("unknown command {other:?}\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> Result<(), String> {
    // Help needs no adapter.
    if !arguments.iter().any(|a| a == "--help" || a == "-h") {
        install::driver()?;
    }
    let mut command = cargo(&["run", "--release", "--bin", "bench", "--"]);
    run::status(command.args(arguments))
}

fn test(arguments: &[String]) -> Result<(), String> {
    install::driver()?;
    python::pip()?;
    let mut all = cargo(&["test", "--release", "--workspace"]);
    if !arguments.is_empty() {
        return run::status(all.args(arguments));
    }
    install::component("rustfmt", "fmt")?;
    install::component("clippy", "clippy")?;
    let mut doc = cargo(&["doc", "--release", "--no-deps", "--package", "anygpu"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    // Everything in the release profile: lints, documentation and tests share what they build of the dependencies.
    let mut steps = vec![
        Step::new("format", cargo(&["fmt", "--all", "--check"])),
        Step::new("lints", cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        Step::new("documentation", doc),
        Step::new("tests", all),
        Step::new("burn", burn::tests()),
    ];
    steps.extend(web::test_steps()?);
    run::steps(steps)
}
