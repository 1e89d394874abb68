//! The browser that tests run in.

use crate::install;
use std::env;
use std::path::{Path, PathBuf};

/// Variable that names the browser.
const NAMED: &str = "ANYGPU_CHROMIUM";
/// The same as in `web/tests/lib/browser.mjs`.
const PROGRAMS: [&str; 5] =
    ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chromium-headless-shell"];
const ELSEWHERE: [&str; 3] = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
];

/// Makes sure that there is one.
///
/// # Errors
/// What to install by hand, or what went wrong.
pub fn set_up() -> Result<(), String> {
    if let Some(named) = env::var_os(NAMED).map(PathBuf::from) {
        let there = named.is_file();
        return there.then_some(()).ok_or_else(|| format!("{NAMED} is {}: no such file", named.display()));
    }
    if installed() {
        return Ok(());
    }
    let by_hand = format!("install Chrome or Chromium, or name one in {NAMED}");
    if !install::is_debian() {
        return Err(format!("found no Chromium on this machine\n{by_hand}"));
    }
    install::debian("no Chromium", &["chromium"])?;
    if installed() { Ok(()) } else { Err(format!("the system's packages have no chromium program\n{by_hand}")) }
}

fn installed() -> bool {
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    PROGRAMS.iter().any(|program| folders.iter().any(|folder| folder.join(program).is_file()))
        || ELSEWHERE.iter().any(|path| Path::new(path).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_look_for_the_same_browsers() {
        let script = std::fs::read_to_string(crate::run::root().join("web/tests/lib/browser.mjs")).unwrap();
        for name in PROGRAMS.iter().chain(&ELSEWHERE) {
            let quoted = format!("\"{}\"", name.replace('\\', r"\\"));
            assert!(script.contains(&quoted), "{quoted}");
        }
        assert!(script.contains(NAMED));
    }
}
