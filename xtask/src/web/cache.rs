//! The folder outside the clone that holds what the browser build sets up once.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

/// `anygpu/web` in the user's cache folder.
///
/// # Errors
/// When no home folder is known.
pub fn folder() -> Result<PathBuf, String> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = |below: &str| variable("HOME").map(|home| home.join(below));
    let caches = variable("XDG_CACHE_HOME").or_else(|| match env::consts::OS {
        "windows" => variable("LOCALAPPDATA"),
        "macos" => home("Library/Caches"),
        _ => home(".cache"),
    });
    let caches = caches.ok_or("no cache folder: set XDG_CACHE_HOME or HOME")?;
    Ok(caches.join("anygpu").join("web"))
}

/// The folder `name` of the cache. If it isn't there, `make` fills a new one, which takes the name once it is whole, so
/// that an interrupted run leaves nothing half done and of two runs at once the first to end wins.
///
/// # Errors
/// Those of `make`, and of moving the folder.
pub fn once(name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let cache = folder()?;
    once_in(&cache, name, make)
}

fn once_in(cache: &Path, name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let folder = cache.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = cache.join(format!("{name}.{}.unfinished", process::id()));
    let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(&unfinished).map_err(|e| failed(&unfinished, e))?;
    let made = make(&unfinished).and_then(|()| {
        fs::rename(&unfinished, &folder).or_else(|e| if folder.is_dir() { Ok(()) } else { Err(failed(&folder, e)) })
    });
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|e| failed(&unfinished, e))?;
    }
    made.map(|()| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_takes_the_name() {
        let cache = env::temp_dir().join(format!("anygpu-cache-{}", process::id()));
        let failed = once_in(&cache, "tool", |_| Err("no".into()));
        assert_eq!(failed, Err("no".into()));
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 0, "a failure leaves nothing");
        let mut runs = 0;
        for _ in 0..2 {
            let folder = once_in(&cache, "tool", |folder| {
                runs += 1;
                fs::write(folder.join("a"), "x").map_err(|e| e.to_string())
            });
            assert_eq!(fs::read(folder.unwrap().join("a")).unwrap(), b"x");
        }
        assert_eq!(runs, 1, "what is there is not made again");
        fs::remove_dir_all(&cache).unwrap();
    }
}
