//! What the programs of this package share.
#![warn(missing_docs)]

pub mod cli;
pub mod clip;
pub mod cpu;
pub mod shipped;

/// A device, with compiled pipelines kept in the user's cache folder (`anygpu/pipelines`), so that programs start faster from
/// the second time on.
///
/// # Errors
/// As [`anygpu::gpu::Context::open`].
pub async fn open(
    adapter: &anygpu::gpu::Adapter,
    clip: Option<&anygpu::profile::Profile>,
) -> anygpu::Result<anygpu::gpu::Context> {
    let context = anygpu::gpu::Context::open(adapter, clip).await?;
    if let Some(folder) = dirs::cache_dir() {
        context.keep_pipelines(&folder.join("anygpu").join("pipelines"));
    }
    Ok(context)
}
