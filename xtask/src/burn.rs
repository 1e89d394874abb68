//! The tests of the Burn modules: a command of their own, so that an ordinary build has no Burn in it.

use crate::run::cargo;
use std::process::Command;

/// Builds the library, the programs and the examples as `cargo build --release --features burn` does, so that Burn is built
/// once for both, and runs the tests that have it in their name.
pub fn tests() -> Command {
    cargo(&["test", "--release", "--features", "burn", "--", "burn"])
}
