//! Loading onto a device, again where it is lost, and what is told of it.

use anygpu::gpu::Context;
use anygpu::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::host::Host;

/// How often a load or a generation is begun again in a row when devices are lost without getting further.
pub const ATTEMPTS: usize = 3;

/// An adapter's or a device's profile as JSON, with whether a CPU plays it.
pub fn described(context: &Context, is_cpu: bool) -> Value {
    let mut profile = serde_json::to_value(context.profile()).unwrap_or_default();
    profile["isCpu"] = json!(is_cpu);
    profile
}

/// Loads, again where the device is lost meanwhile; tells the page where that replaces one that was `lost`.
pub async fn attempt<T>(host: &Host, lost: Option<&Error>, load: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut result = Err(Error::device_lost("the device was lost"));
    for _ in 0..ATTEMPTS {
        result = load().await;
        match &result {
            Err(error) if error.kind() == ErrorKind::DeviceLost => continue,
            _ => break,
        }
    }
    match (result, lost) {
        (Ok(loaded), lost) => {
            if lost.is_some() {
                host.say(&json!({ "type": "rebuilt" }));
            }
            Ok(loaded)
        }
        (Err(error), Some(lost)) => {
            Err(Error::device_lost(format!("{lost}; the model cannot be loaded again: {error}")))
        }
        (Err(error), None) => Err(error),
    }
}
