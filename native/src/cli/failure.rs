//! Why a command ended early.

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// An error for a person.
    Error(String),
    /// The arguments do not fit together.
    Usage(String),
    /// Whoever read the output has closed it.
    ClosedPipe,
    /// Ctrl-C.
    Interrupted,
    /// The output says already what failed.
    Reported,
}

/// What a command returns.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// An error with a message.
    pub fn error(message: impl ToString) -> Self {
        Self::Error(message.to_string())
    }
}

impl From<anygpu::Error> for Failure {
    fn from(error: anygpu::Error) -> Self {
        Self::Error(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Error(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(std::io::ErrorKind::BrokenPipe) => Self::ClosedPipe,
            _ => Self::Error(error.to_string()),
        }
    }
}
