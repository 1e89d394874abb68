//! Installing what is missing, where that is known to work, and saying what to install elsewhere.

use crate::driver::{Machine, Missing};
use crate::run;
use std::fs;
use std::process::{Command, Stdio};

/// Makes sure that a Vulkan adapter is to be expected: on Linux without one, installs Mesa's software driver.
///
/// # Errors
/// What to install by hand, or what went wrong.
pub fn driver() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let variable = |name: &str| std::env::var(name).ok();
    let machine = Machine { root: "/".into(), variable: &variable };
    let Err(missing) = machine.adapter() else { return Ok(()) };
    let what = match missing {
        Missing::Loader => "no Vulkan loader (libvulkan.so.1)",
        Missing::Driver => "no Vulkan driver",
        Missing::Device => "Vulkan drivers, but no GPU for them",
    };
    let distribution = distribution();
    if distribution != Some(Distribution::Debian) {
        return Err(format!("found {what} on this machine\n{}", advice(distribution)));
    }
    debian(what, &DEBIAN).map_err(|e| format!("{e}\n{}", advice(distribution)))?;
    match machine.adapter() {
        Ok(()) => Ok(()),
        Err(Missing::Device) if std::env::var_os("VK_DRIVER_FILES").is_some() => {
            Err("VK_DRIVER_FILES names drivers without a GPU: unset it to use the software driver".into())
        }
        Err(still) => {
            Err(format!("{} are installed, but a Vulkan adapter is still missing: {still:?}", DEBIAN.join(" ")))
        }
    }
}

/// Installs Debian's `packages`, of which `found` says why.
///
/// # Errors
/// When that takes a password, or when apt-get fails.
pub fn debian(found: &str, packages: &[&str]) -> Result<(), String> {
    let Some(as_root) = as_root() else {
        return Err(format!(
            "found {found} on this machine, and may not install any: neither root nor sudo without a password; as root: \
             apt-get install {}",
            packages.join(" ")
        ));
    };
    eprintln!("xtask: found {found}: installing {}", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut words = as_root.to_vec();
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        words.extend(arguments);
        run::status(Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()))
    };
    // A fresh machine has no package lists. Where a list fails, what is needed may still be in another.
    if let Err(message) = apt(&["update", "--quiet"]) {
        eprintln!("xtask: {message}; going on");
    }
    apt(&[["install", "--quiet", "--yes", "--no-install-recommends"].as_slice(), packages].concat())
}

/// Whether this system has Debian's packages.
pub fn is_debian() -> bool {
    distribution() == Some(Distribution::Debian)
}

fn distribution() -> Option<Distribution> {
    Distribution::of(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// Makes sure that `cargo SUBCOMMAND` is there: rustup's minimal set leaves it out.
///
/// # Errors
/// What to install by hand.
pub fn component(name: &str, subcommand: &str) -> Result<(), String> {
    if run::output(Command::new(run::cargo_program()).args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    eprintln!("xtask: found no cargo {subcommand}: installing {name}");
    run::status(Command::new("rustup").args(["component", "add", name]).stdin(Stdio::null()))
        .map_err(|e| format!("{e}\ninstall the Rust component {name} (rustup component add {name})"))
}

const DEBIAN: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distribution {
    Debian,
    Fedora,
    Arch,
    Alpine,
    Suse,
}

impl Distribution {
    const ALL: [Self; 5] = [Self::Debian, Self::Fedora, Self::Arch, Self::Alpine, Self::Suse];

    /// From the text of `/etc/os-release`: its `ID`, then what it says it is like, nearest first.
    fn of(release: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_lowercase()
        };
        let names = format!("{} {}", value("ID"), value("ID_LIKE"));
        names.split_whitespace().find_map(|name| match name {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" => Some(Self::Fedora),
            "arch" | "archlinux" => Some(Self::Arch),
            "alpine" => Some(Self::Alpine),
            name if name == "suse" || name.starts_with("opensuse") || name.starts_with("sles") => Some(Self::Suse),
            _ => None,
        })
    }

    fn command(self) -> (&'static str, &'static str) {
        match self {
            Self::Debian => ("Debian, Ubuntu", "apt-get install libvulkan1 mesa-vulkan-drivers"),
            Self::Fedora => ("Fedora, RHEL", "dnf install vulkan-loader mesa-vulkan-drivers"),
            Self::Arch => ("Arch", "pacman -S vulkan-icd-loader vulkan-swrast"),
            Self::Alpine => ("Alpine", "apk add vulkan-loader mesa-vulkan-swrast"),
            Self::Suse => ("openSUSE", "zypper install libvulkan1 libvulkan_lvp"),
        }
    }
}

fn advice(distribution: Option<Distribution>) -> String {
    let mut text =
        String::from("With a GPU, install its Vulkan driver. Without one, install Mesa's software driver; as root:\n");
    for known in Distribution::ALL {
        if distribution.is_none_or(|d| d == known) {
            let (name, command) = known.command();
            text.push_str(&format!("  {:<16}{command}\n", format!("{name}:")));
        }
    }
    if distribution.is_none() {
        text.push_str("  elsewhere:      the Vulkan loader (libvulkan.so.1) and Mesa's lavapipe\n");
    }
    text + "and run the same command again."
}

/// What goes before a command that only root may run. `None` if there is no way without asking for a password.
fn as_root() -> Option<&'static [&'static str]> {
    let user = run::output(Command::new("id").arg("-u")).unwrap_or_default();
    if user.trim() == "0" { Some(&[]) } else { run::succeeds("sudo", &["-n", "true"]).then_some(&["sudo", "-n"]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_known_by_their_families() {
        let cases = [
            ("PRETTY_NAME=\"Debian\"\nID=debian\n", Some(Distribution::Debian)),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(Distribution::Debian)),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"", Some(Distribution::Fedora)),
            ("ID=manjaro\nID_LIKE=arch", Some(Distribution::Arch)),
            ("ID=alpine", Some(Distribution::Alpine)),
            ("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"", Some(Distribution::Suse)),
            ("VERSION_ID=debian\nID=nixos", None),
            ("", None),
        ];
        for (release, expected) in cases {
            assert_eq!(Distribution::of(release), expected, "{release}");
        }
    }

    #[test]
    fn advice_names_the_command_to_type() {
        for known in Distribution::ALL {
            let text = advice(Some(known));
            assert!(text.contains(known.command().1) && text.lines().count() == 3, "{text}");
            assert!(advice(None).contains(known.command().1));
        }
        assert!(advice(None).contains("lavapipe"));
    }
}
