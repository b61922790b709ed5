//! Why a guest gets no network.

use std::{io, path::PathBuf};

use tart_root_helper::HelperError;

use crate::Endpoint;

/// A network could not be planned or attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// An address names no host and port that can be reached.
    #[error("`{text}` cannot be reached by a job: {reason}")]
    Endpoint {
        /// The address as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two allowed endpoints would have the same address in the guest.
    #[error("`{first}` and `{second}` would both be {address} in the guest; give one of them another port")]
    Collision {
        /// The one that has the address.
        first: Endpoint,
        /// The one that wants it too.
        second: Endpoint,
        /// The address.
        address: String,
    },
    /// More endpoints than there are addresses for.
    #[error("a job can be given at most {limit} host names to reach")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// An entry of a list of what may be reached is none.
    #[error("`{text}` is no entry of a network policy: {reason}")]
    Rule {
        /// The entry as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A network was asked for what it cannot do.
    #[error("the network `{network}` cannot {what}")]
    Unable {
        /// Name of the network.
        network: &'static str,
        /// What it cannot do, and what to do instead.
        what: String,
    },
    /// A program that the network needs is missing or unusable.
    #[error("the network `{network}` needs the program `{program}`: {reason}")]
    Program {
        /// Name of the network.
        network: &'static str,
        /// The program.
        program: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The operating system refused something.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// The root helper did not do it.
    #[error(transparent)]
    Helper(#[from] HelperError),
}

impl NetError {
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }
    /// The error with what caused it, for who has only the text.
    pub(crate) fn explained(&self) -> String {
        let mut text = self.to_string();
        if let Self::System { source, .. } = self {
            text = format!("{text}: {source}");
        }
        text
    }
}
