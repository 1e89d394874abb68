//! Room for templates that nest: minijinja walks and drops nested expressions and values by recursion, as deep as the
//! template's length and steps allow.

#[cfg(not(target_arch = "wasm32"))]
use crate::error::Error;
use crate::error::Result;

/// Bytes of stack, touched only as far as they are used. A level takes at most some 500 bytes (measured: 400,000 nested
/// lists, and expressions of 100,000 terms, are built, printed and dropped within this).
#[cfg(not(target_arch = "wasm32"))]
const STACK_BYTES: usize = 256 << 20;

/// Runs the engine on a stack of its own. A panic in it becomes an error.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn deep<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".to_owned()).stack_size(STACK_BYTES);
        let handle = thread.spawn_scoped(scope, work).map_err(|error| {
            Error::out_of_memory(format!("chat template: no stack of {STACK_BYTES} bytes: {error}"))
        })?;
        handle.join().unwrap_or_else(|_| Err(Error::tokenizer("chat template: the template engine failed")))
    })
}

/// In a browser there are no threads to start; overflowing its stack is an exception there.
#[cfg(target_arch = "wasm32")]
pub(super) fn deep<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    work()
}
