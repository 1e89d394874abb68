//! The tests of the Burn modules: a command of their own, so that an ordinary build has no Burn in it.

use crate::run::cargo;
use std::process::Command;

/// The crates below Burn that take longest to compile. What the tests wait for is the software driver, not these: with few
/// optimisations they are built in a fraction of the time. A build by hand, and so every benchmark, optimises them all.
const SLOW_CRATES: [&str; 19] = [
    "burn-autodiff",
    "burn-core",
    "burn-cubecl",
    "burn-dispatch",
    "burn-nn",
    "burn-optim",
    "burn-tensor",
    "cubecl-core",
    "cubecl-opt",
    "cubecl-std",
    "cubecl-wgpu",
    "cubek-attention",
    "cubek-convolution",
    "cubek-interpolate",
    "cubek-matmul",
    "cubek-pool",
    "cubek-quant",
    "cubek-reduce",
    "cubek-std",
];

/// Builds the library, the programs and the examples with the feature `burn`, and runs the tests that have it in their name.
pub fn tests() -> Command {
    let packages = ["--package", "anygpu", "--package", "anygpu-native"];
    let mut command = cargo(&["test", "--release", "--features", "anygpu-native/burn"]);
    command.args(packages);
    for name in SLOW_CRATES {
        for setting in ["opt-level=1", "debug=false"] {
            command.arg("--config").arg(format!("profile.release.package.{name}.{setting}"));
        }
    }
    command.args(["--", "burn"]);
    command
}
