//! Why there is no session server.

use std::io;

/// The session server cannot be started as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// An address of the configuration is none.
    #[error("`{key} = \"{value}\"` is no address: {problem}")]
    Address {
        /// Which one.
        key: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nobody can listen there.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Where.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// There is no certificate.
    #[error("cannot make the certificate of the session server: {0}")]
    Certificate(String),
    /// There is no randomness for a session.
    #[error("the system has no randomness: {0}")]
    Randomness(getrandom::Error),
}
