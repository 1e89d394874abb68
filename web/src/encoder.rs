//! What [`Embedder`](crate::Embedder) embeds with: each of the package's entries has one kind.

#[cfg(feature = "burn")]
mod burn;
#[cfg(feature = "engine")]
mod plan;

use anygpu::embed::{LoadOptions, ModelFiles, Reader, TextOptions, VectorStream};
use anygpu::gpu::Context;
use anygpu::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::host::Host;

/// Which encoder it is.
#[derive(Clone)]
pub struct Choice {
    /// A stored profile to clip the device to.
    pub profile: Option<String>,
    /// Of a Burn module, whose kernels it runs on; a plan without it.
    pub kernels: Option<KernelsName>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelsName {
    Own,
    Burn,
}

/// An encoder on a device.
pub trait Encoder {
    /// The device.
    fn context(&self) -> &Context;

    /// How texts are read.
    fn reader(&self) -> &Reader;

    /// Adds what only this kind says of itself.
    fn describe(&self, info: &mut Value);

    /// The vectors of texts as they are computed.
    fn stream<'a>(&'a mut self, texts: &'a [&'a str], options: &TextOptions) -> VectorStream<'a>;
}

/// What lives on the device, and goes with it.
pub struct Loaded {
    pub encoder: Box<dyn Encoder>,
    pub is_cpu: bool,
}

/// Opens a device and loads the chosen encoder onto it; `opened` is told the device as soon as it is there.
pub async fn load(
    host: &Host,
    choice: &Choice,
    files: ModelFiles,
    options: &LoadOptions,
    opened: impl FnOnce(&Context),
) -> Result<Loaded> {
    match (choice.kernels, &choice.profile) {
        #[cfg(feature = "burn")]
        (Some(kernels), None) => burn::load(host, kernels, files, options, opened).await,
        #[cfg(feature = "engine")]
        (None, profile) => plan::load(host, profile.as_deref(), files, options, opened).await,
        (kernels, profile) => {
            let of = |there: bool| if there { "some" } else { "none" };
            let (found, wanted) = (of(kernels.is_some()), of(cfg!(feature = "burn")));
            let profile = profile.as_deref().unwrap_or("none");
            Err(Error::unsupported(format!(
                "options: found kernels {found} and profile {profile}, expected kernels {wanted} in this entry of the package, and \
                 no profile beside them"
            )))
        }
    }
}
