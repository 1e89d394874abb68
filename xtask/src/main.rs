//! Set-up and checks: `cargo xtask bench | test | ci`.

fn main() {}
