//! From a loaded model to tokens: [`Model`] holds the weights, a [`Session`] one or more conversations, and
//! [`Session::generate`] is a stream of tokens.
//!
//! Decode is device-resident: the GPU samples, and the next step's embedding reads the token where sampling left it. The
//! host submits steps ahead and reads tokens back behind them, so that read-back is off the critical path.
//!
//! ```
//! # pollster::block_on(async {
//! use anygpu::chat::{Message, Role};
//! use anygpu::format::source::MappedFile;
//! use anygpu::generate::{GenerateOptions, Metrics, Model, SessionOptions};
//! use anygpu::gpu::{Adapter, Context};
//!
//! let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
//! let file = std::sync::Arc::new(MappedFile::open("benches/models/anygpu-rust-6m-f16.gguf")?);
//! let model = Model::load(&context, file, |_| {}).await?;
//! let prompt = model.chat_template()?.encode(model.tokenizer()?, &[Message::new(Role::User, "hello")], true)?;
//!
//! let mut session = model.session(SessionOptions { context_length: 256, ..Default::default() })?;
//! let mut metrics = Metrics::default();
//! let options = GenerateOptions { max_tokens: 4, ..Default::default() };
//! let mut stream = session.generate(&prompt, options, &mut metrics);
//! let mut tokens = Vec::new();
//! while let Some(token) = stream.next().await {
//!     tokens.push(token?);
//! }
//! assert_eq!(model.tokenizer()?.decode(&tokens[..1], true)?, "Hello");
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

pub mod model;
pub mod options;
pub mod session;
pub(crate) mod slots;
pub mod stop;
pub mod stream;

pub use model::{LoadProgress, Model, ModelFile};
pub use options::{ContextFull, GenerateOptions, Sampling, SessionOptions};
pub use session::Session;
pub use stop::StopStrings;
pub use stream::{Finish, Metrics, TokenStream};

#[cfg(test)]
mod tests;
