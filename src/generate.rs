//! From a loaded model to tokens: [`Model`] holds the weights, a [`Session`] one or more conversations, and
//! [`Session::generate`] is a stream of tokens.
//!
//! Decode is device-resident: the GPU samples, and the next step's embedding reads the token where sampling left it. The
//! host submits steps ahead and reads tokens back behind them, so that read-back is off the critical path.

pub mod model;
pub mod options;
pub mod session;
pub mod stream;

pub use model::{LoadProgress, Model};
pub use options::{ContextFull, GenerateOptions, Sampling, SessionOptions};
pub use session::Session;
pub use stream::{Finish, Metrics, TokenStream};

#[cfg(test)]
mod tests;
