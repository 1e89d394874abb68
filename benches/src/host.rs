//! The machine of a run, as far as it tells; and the files of a report.

use crate::report::{Environment, Host, Report};
use crate::{html, text};
use anygpu::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Date, host, crate version, git revision and command line of this process. The adapter and what is measured on it are
/// for the caller to add.
pub fn environment() -> Environment {
    Environment {
        date: SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| date(since.as_secs())),
        host: Host { os: os(), cpu: cpu(), memory_bytes: memory_bytes() },
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        revision: revision(),
        command: Some(command()),
        ..Environment::default()
    }
}

/// Writes `report.json`, `report.md` and `report.html` into `folder`, which is made if it is not there, and returns their
/// paths.
///
/// # Errors
/// `Io`, naming the file or folder that cannot be written.
pub fn write(report: &Report, folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| Error::from(e).context(path)
    };
    fs::create_dir_all(folder).map_err(io(folder))?;
    let files =
        [("report.json", report.to_json()), ("report.md", text::markdown(report)), ("report.html", html::page(report))];
    let mut paths = Vec::new();
    for (name, content) in files {
        let path = folder.join(name);
        fs::write(&path, content).map_err(io(&path))?;
        paths.push(path);
    }
    Ok(paths)
}

/// Seconds since 1970 as UTC, `2026-11-22T10:20:30Z`. Days to a date by Howard Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn os() -> Option<String> {
    let name = if cfg!(target_os = "macos") {
        Some(format!("macOS {}", output("sw_vers", &["-productVersion"])?))
    } else if cfg!(windows) {
        output("cmd", &["/c", "ver"])
    } else {
        let release = fs::read_to_string("/etc/os-release").ok()?;
        let line = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(line.trim_matches('"').to_owned())
    };
    name.or_else(|| Some(std::env::consts::OS.to_owned()))
}

fn cpu() -> Option<String> {
    let name = if cfg!(target_os = "macos") {
        output("sysctl", &["-n", "machdep.cpu.brand_string"])
    } else if cfg!(windows) {
        std::env::var("PROCESSOR_IDENTIFIER").ok()
    } else {
        field("/proc/cpuinfo", "model name")
    };
    let threads = std::thread::available_parallelism().ok()?.get();
    Some(format!("{}, {threads} threads", name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())))
}

fn memory_bytes() -> Option<u64> {
    if cfg!(target_os = "macos") {
        return output("sysctl", &["-n", "hw.memsize"])?.parse().ok();
    }
    // Windows has no file or plain command that says it: unknown there.
    let kilobytes: u64 = field("/proc/meminfo", "MemTotal")?.trim_end_matches("kB").trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The revision of the checkout that this crate was built from, if it is still there.
fn revision() -> Option<String> {
    let git = |arguments: &[&str]| output("git", &[&["-C", env!("CARGO_MANIFEST_DIR")], arguments].concat());
    let revision = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(if changed { revision + "+" } else { revision })
}

fn command() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    // Where the program lies says nothing about the run, and may say too much about the machine.
    let program = program.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let arguments = std::env::args_os().skip(1).map(|a| {
        let a = a.to_string_lossy().into_owned();
        if a.is_empty() || a.contains(|c: char| c.is_whitespace() || c == '"') { format!("'{a}'") } else { a }
    });
    program.into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// The value of the first `key : value` line of a file.
fn field(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

/// What a program prints, trimmed. `None` when it is not there, fails, or prints nothing.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_078_012_799, "2004-02-28T23:59:59Z"),
            (1_795_342_830, "2026-11-22T10:20:30Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn the_host_tells_something() {
        let environment = environment();
        assert!(environment.date.is_some_and(|d| d.len() == 20));
        assert!(environment.host.cpu.is_some_and(|c| c.contains("threads")));
        assert!(environment.command.is_some_and(|c| !c.contains(std::path::MAIN_SEPARATOR)));
    }

    #[test]
    fn writes_all_files_and_names_what_it_cannot() {
        let folder = std::env::temp_dir().join(format!("anygpu-report-{}", std::process::id()));
        let paths = write(&Report::default(), &folder.join("a/b")).unwrap();
        assert_eq!(paths.len(), 3);
        let json = fs::read_to_string(&paths[0]).unwrap();
        assert_eq!(Report::from_json(&json).unwrap(), Report::default());
        let error = write(&Report::default(), &paths[0]).unwrap_err().to_string();
        assert!(error.contains("report.json"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
