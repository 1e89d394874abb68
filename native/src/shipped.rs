//! The model that comes along, so that everything works without a download.

use std::path::PathBuf;
use std::sync::Arc;

use anygpu::Result;
use anygpu::format::source::ByteSource;

/// Its file name.
pub const NAME: &str = "anygpu-rust-6m-f16.gguf";

static BYTES: &[u8] = include_bytes!("../../benches/models/anygpu-rust-6m-f16.gguf");

/// Its bytes, part of the program.
pub fn source() -> Arc<dyn ByteSource> {
    Arc::new(BYTES.to_vec())
}

/// A file of it, for programs that read files: written to the folder for temporary files unless it is there.
///
/// # Errors
/// `Io`, naming the path.
pub fn file() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(NAME);
    let there = std::fs::metadata(&path).is_ok_and(|found| found.len() == BYTES.len() as u64);
    if !there {
        let named = |error: std::io::Error| anygpu::Error::from(error).context(path.display());
        let partial = path.with_extension(format!("{}.part", std::process::id()));
        std::fs::write(&partial, BYTES).map_err(named)?;
        std::fs::rename(&partial, &path).map_err(named)?;
    }
    Ok(path)
}
