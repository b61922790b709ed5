//! Why there is no secret.

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The job's configuration, or its rights.
    Configuration,
    /// The provider is not there, or not well.
    Provider,
    /// Something else.
    Other,
    /// There is no such secret.
    Missing,
}

/// There is no secret. The text is for the job's author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SecretError {
    /// Whose fault it is.
    pub cause: Cause,
    text: String,
}

impl SecretError {
    pub(crate) fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into() }
    }

    pub(crate) fn configuration(text: impl Into<String>) -> Self {
        Self::new(Cause::Configuration, text)
    }
}
