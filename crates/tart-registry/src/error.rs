//! Why a registry does not give what is wanted.

use std::{io, path::PathBuf, time::Duration};

/// Why a registry does not give what is wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A name of no image.
    #[error("`{}` is no name of an image: {problem}", name.escape_debug())]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The registry does not have it.
    #[error("{what} was not found at {host}{}", missing(what))]
    NotFound {
        /// The image or blob.
        what: String,
        /// The registry.
        host: String,
    },
    /// The registry does not give it to this user.
    #[error("{host} denies access to {what}{}: {said}", if *.anonymous { " without credentials" } else { " with the given credentials" })]
    Denied {
        /// The image or blob.
        what: String,
        /// The registry.
        host: String,
        /// Whether there were no credentials.
        anonymous: bool,
        /// What it says, or the status.
        said: String,
    },
    /// There is no connection.
    #[error("cannot reach {host}: {problem}")]
    Unreachable {
        /// The registry.
        host: String,
        /// Why.
        problem: String,
    },
    /// There is a connection that cannot be used with the settings of this host.
    #[error("cannot talk to {host} safely: {problem}; {hint}")]
    Unsafe {
        /// The registry.
        host: String,
        /// Why.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// An answer that says no.
    #[error("{host} answered {status} for {what}{}", said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    Answer {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What it says.
        said: Option<String>,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// An answer that cannot be right.
    #[error("{host} sent something unusable for {what}: {problem}")]
    Content {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// No image of an index fits.
    #[error(transparent)]
    Select(#[from] tart_oci::LayerError),
    /// Credentials or settings that make no sense.
    #[error("{0}")]
    Settings(String),
    /// A file of this host.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to do about something missing: a part of an image has no name that could be wrong.
fn missing(what: &str) -> &'static str {
    if what.starts_with("layer ") || what.starts_with("sha256:") {
        ", whose image names it: push the image again"
    } else {
        ": check its name and tag, and that you may see it"
    }
}

impl RegistryError {
    /// Whether the author of the job or the administrator has to change something.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Name { .. }
                | Self::NotFound { .. }
                | Self::Denied { .. }
                | Self::Unsafe { .. }
                | Self::Settings(_)
                | Self::Select(tart_oci::LayerError::Platform { .. })
        )
    }

    /// Whether the registry or the way to it does not work.
    #[must_use]
    pub fn is_network(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Answer { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// Whether another try may succeed.
    #[must_use]
    pub fn is_worth_retrying(&self) -> bool {
        self.is_network() || matches!(self, Self::Answer { status: 408, .. })
    }
}
