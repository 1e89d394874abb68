//! What the programs of this package share.
#![warn(missing_docs)]

pub mod cli;
pub mod clip;
pub mod cpu;
pub mod shipped;

/// A device, with compiled pipelines and what trials found kept in the user's cache folder (`anygpu/pipelines`, `anygpu/trials`),
/// so that programs start faster from the second time on.
///
/// # Errors
/// As [`anygpu::gpu::Context::open`].
pub async fn open(
    adapter: &anygpu::gpu::Adapter,
    clip: Option<&anygpu::profile::Profile>,
) -> anygpu::Result<anygpu::gpu::Context> {
    let Some(folder) = dirs::cache_dir().map(|folder| folder.join("anygpu")) else {
        return anygpu::gpu::Context::open(adapter, clip).await;
    };
    let profile = anygpu::trial::profile(adapter, &folder.join("trials")).await;
    let profile = match clip {
        Some(clip) => profile.clip(clip),
        None => profile,
    };
    let context = anygpu::gpu::Context::with_profile(adapter, profile).await?;
    context.keep_pipelines(&folder.join("pipelines"));
    Ok(context)
}
