//! The profile that a device is clipped to, by what a user names.

use anygpu::profile::Profile;
use anygpu::{Error, Result};

/// A stored profile by name, or one of a JSON file (a name that ends in `.json`) in the form of the stored ones.
///
/// # Errors
/// `Unsupported` for a name that there is not, `Io` or `Format` for a file that does not read.
///
/// # Examples
/// ```
/// assert!(anygpu_native::clip::profile("webgpu-baseline").is_ok());
/// assert!(anygpu_native::clip::profile("no-such-file.json").is_err());
/// ```
pub fn profile(name: &str) -> Result<Profile> {
    if !name.ends_with(".json") {
        return Profile::by_name(name);
    }
    let named = |e: &dyn std::fmt::Display| Error::format(format!("profile {name}: {e}"));
    let text = std::fs::read_to_string(name).map_err(|e| Error::from(e).context(name))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| named(&e))?;
    let profile = value.get("profile").unwrap_or(&value).clone();
    serde_json::from_value(profile).map_err(|e| named(&e))
}
