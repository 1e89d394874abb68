//! Whether a Vulkan adapter is to be expected on this Linux machine, told from files, as the Vulkan loader finds drivers.

use std::fs;
use std::path::{Path, PathBuf};

/// A machine as far as the question goes; tests make up their own.
pub struct Machine<'a> {
    /// Folder that stands for `/`.
    pub root: PathBuf,
    /// Value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The Vulkan loader, `libvulkan.so.1`.
    Loader,
    /// Any driver whose library is there.
    Driver,
    /// A GPU for the drivers that are there; none of them is a software driver.
    Device,
}

/// Names of drivers that compute on the processor.
const SOFTWARE: [&str; 3] = ["lvp", "swiftshader", "lavapipe"];

impl Machine<'_> {
    /// Looks for a loader, a driver, and a device for it.
    ///
    /// # Errors
    /// What is missing for an adapter to be found.
    pub fn adapter(&self) -> Result<(), Missing> {
        if !self.library("libvulkan.so.1") {
            return Err(Missing::Loader);
        }
        let drivers: Vec<PathBuf> = self.manifests().into_iter().filter(|m| self.usable(m)).collect();
        if drivers.is_empty() {
            return Err(Missing::Driver);
        }
        let is_software = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            SOFTWARE.iter().any(|software| name.contains(software))
        };
        if drivers.iter().any(is_software) || self.device() { Ok(()) } else { Err(Missing::Device) }
    }

    /// Driver manifests where the loader looks for them (LoaderDriverInterface.md of the Khronos Vulkan-Loader).
    fn manifests(&self) -> Vec<PathBuf> {
        let set = |name: &str| (self.variable)(name).filter(|value| !value.is_empty());
        let list = |value: String| value.split(':').filter(|p| !p.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        // These replace the search; files or folders.
        if let Some(files) = set("VK_DRIVER_FILES").or_else(|| set("VK_ICD_FILENAMES")) {
            return list(files).iter().flat_map(|path| manifests_in(&self.at(path))).collect();
        }
        let home = |below: &str| set("HOME").map(|home| format!("{home}/{below}"));
        let mut folders = Vec::new();
        folders.extend(set("XDG_CONFIG_HOME").or_else(|| home(".config")));
        folders.extend(list(set("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into())));
        folders.extend(["/usr/local/etc".into(), "/etc".into()]);
        folders.extend(set("XDG_DATA_HOME").or_else(|| home(".local/share")));
        folders.extend(list(set("XDG_DATA_DIRS").unwrap_or_else(|| "/usr/local/share:/usr/share".into())));
        // Without the variable the loader looks there too; with it, drivers of the system must not be overlooked.
        folders.extend(["/usr/local/share".into(), "/usr/share".into(), "/run/opengl-driver/share".into()]);
        let mut found: Vec<PathBuf> = (folders.iter())
            .map(|folder| self.at(folder).join("vulkan/icd.d"))
            .chain(list(set("VK_ADD_DRIVER_FILES").unwrap_or_default()).iter().map(|path| self.at(path)))
            .flat_map(|path| manifests_in(&path))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Whether the library that a manifest names is there. An uninstalled driver may leave its manifest.
    fn usable(&self, manifest: &Path) -> bool {
        let Ok(text) = fs::read_to_string(manifest) else { return false };
        let Some(library) = library_path(&text) else { return false };
        match library {
            name if !name.contains('/') => self.library(name),
            path if path.starts_with('/') => self.at(path).exists(),
            relative => manifest.parent().is_some_and(|folder| folder.join(relative).exists()),
        }
    }

    /// Whether a shared library lies in a folder where the dynamic linker looks.
    fn library(&self, name: &str) -> bool {
        let set = (self.variable)("LD_LIBRARY_PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = set.split(':').filter(|p| !p.is_empty()).map(|p| self.at(p)).collect();
        folders.push(self.at("/run/opengl-driver/lib"));
        for folder in ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"] {
            // Debian keeps libraries one level down, by architecture.
            folders.push(self.at(folder).join(format!("{}-linux-gnu", std::env::consts::ARCH)));
            folders.push(self.at(folder).join("arm-linux-gnueabihf"));
            folders.push(self.at(folder));
        }
        if folders.iter().any(|folder| folder.join(name).exists()) {
            return true;
        }
        // Other folders that the system was told of. The cache is binary, but its names stand in it as text.
        let cache = fs::read(self.at("/etc/ld.so.cache")).unwrap_or_default();
        let wanted = format!("/{name}\0");
        let Some(end) = cache.windows(wanted.len()).position(|w| w == wanted.as_bytes()) else { return false };
        let start = cache[..end].iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
        let path = String::from_utf8_lossy(&cache[start..end + wanted.len() - 1]).into_owned();
        self.at(&path).exists()
    }

    /// Whether the kernel shows a GPU: a render node, NVIDIA's own device, or that of WSL.
    fn device(&self) -> bool {
        let has = |folder: &str, prefix: &str, digits: bool| {
            let entries = fs::read_dir(self.at(folder)).into_iter().flatten().flatten();
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).any(|name| {
                let rest = name.strip_prefix(prefix);
                rest.is_some_and(|rest| !digits || (!rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())))
            })
        };
        has("/dev/dri", "renderD", true) || has("/dev", "nvidia", true) || has("/dev", "dxg", false)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// `path` itself, or the manifests in it if it is a folder.
fn manifests_in(path: &Path) -> Vec<PathBuf> {
    let is_manifest = |p: &Path| p.extension().is_some_and(|e| e == "json");
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| is_manifest(p)).collect(),
        Err(_) => Some(path.to_owned()).filter(|p| is_manifest(p) && p.is_file()).into_iter().collect(),
    }
}

/// The value of `"library_path"` in a manifest: a flat search, for a key that stands in it once and has no escapes.
fn library_path(manifest: &str) -> Option<&str> {
    let (_, rest) = manifest.split_once("\"library_path\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    rest.split_once('"').map(|(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LVP: (&str, &str) =
        ("usr/share/vulkan/icd.d/lvp_icd.x86_64.json", r#"{"ICD": {"library_path": "/usr/lib/libvulkan_lvp.so"}}"#);
    const NVIDIA: (&str, &str) =
        ("etc/vulkan/icd.d/nvidia_icd.json", "{\"ICD\": {\n \"library_path\" : \"libGLX_nvidia.so.0\"}}");
    const LOADER: (&str, &str) = ("usr/lib64/libvulkan.so.1", "");
    const GLX: (&str, &str) = ("usr/lib/libGLX_nvidia.so.0", "");

    #[test]
    fn tells_what_is_missing() {
        let lib = ("usr/lib/libvulkan_lvp.so", "");
        let elsewhere = ("opt/v/x.json", r#"{"library_path":"../lib/libx.so"}"#);
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], Result<(), Missing>);
        let cases: &[Case<'_>] = &[
            ("nothing", &[], &[], Err(Missing::Loader)),
            ("a driver without a loader", &[LVP, lib], &[], Err(Missing::Loader)),
            ("a loader alone", &[LOADER], &[], Err(Missing::Driver)),
            ("a manifest without its library", &[LOADER, LVP], &[], Err(Missing::Driver)),
            ("a manifest of nothing", &[LOADER, ("etc/vulkan/icd.d/a.json", "{}")], &[], Err(Missing::Driver)),
            ("a software driver", &[LOADER, LVP, lib], &[], Ok(())),
            ("a driver without a GPU", &[LOADER, NVIDIA, GLX], &[], Err(Missing::Device)),
            ("controls only", &[LOADER, NVIDIA, GLX, ("dev/nvidiactl", "")], &[], Err(Missing::Device)),
            ("a driver and its GPU", &[LOADER, NVIDIA, GLX, ("dev/nvidia0", "")], &[], Ok(())),
            ("a render node", &[LOADER, NVIDIA, GLX, ("dev/dri/renderD128", "")], &[], Ok(())),
            ("a screen without a GPU", &[LOADER, NVIDIA, GLX, ("dev/dri/card0", "")], &[], Err(Missing::Device)),
            (
                "only the drivers that a variable names",
                &[LOADER, LVP, lib, NVIDIA, GLX],
                &[("VK_DRIVER_FILES", "/etc/vulkan/icd.d/nvidia_icd.json")],
                Err(Missing::Device),
            ),
            (
                "a folder that a variable names, a library beside it",
                &[LOADER, elsewhere, ("opt/lib/libx.so", ""), ("dev/dxg", "")],
                &[("VK_ICD_FILENAMES", "/opt/v")],
                Ok(()),
            ),
            (
                "a driver of the user's own",
                &[LOADER, (".local/share/vulkan/icd.d/lvp.json", LVP.1), lib],
                &[("HOME", "/")],
                Ok(()),
            ),
            (
                "a loader where a variable says",
                &[("opt/l/libvulkan.so.1", ""), LVP, lib],
                &[("LD_LIBRARY_PATH", "/none:/opt/l")],
                Ok(()),
            ),
            (
                "a loader that only the linker's cache knows",
                &[("opt/q/libvulkan.so.1", ""), ("etc/ld.so.cache", "\0x\0/opt/q/libvulkan.so.1\0"), LVP, lib],
                &[],
                Ok(()),
            ),
            (
                "a cache that is out of date",
                &[("etc/ld.so.cache", "\0/opt/q/libvulkan.so.1\0"), LVP, lib],
                &[],
                Err(Missing::Loader),
            ),
        ];
        let root = std::env::temp_dir().join(format!("anygpu-driver-{}", std::process::id()));
        let mut wrong = Vec::new();
        for (i, (name, files, variables, expected)) in cases.iter().enumerate() {
            let root = root.join(i.to_string());
            fs::create_dir_all(&root).unwrap();
            for (file, content) in *files {
                let path = root.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            let found = Machine { root, variable: &variable }.adapter();
            if found != *expected {
                wrong.push(format!("{name}: {found:?}, expected {expected:?}"));
            }
        }
        fs::remove_dir_all(&root).unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
