//! Why an image cannot be had.

use tart_assets::AssetError;
use tart_oci::LayerError;
use tart_registry::RegistryError;

use crate::{policy::PullPolicy, progress::bytes};

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The name is none, or the registry does not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What the registry or the archive gave is no image that can be used.
    #[error(transparent)]
    Content(#[from] LayerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] AssetError),
    /// Nothing of that name is here, and the registry must not be asked.
    #[error("no image `{name}` here, and the pull policy `{policy}` does not allow to fetch it")]
    NotHere {
        /// The name.
        name: String,
        /// The policy.
        policy: PullPolicy,
    },
    /// All policies failed; the text is of the last one.
    #[error("failed to pull image \"{name}\" with specified policies {}: {last}", PullPolicy::list(policies))]
    Policies {
        /// The name.
        name: String,
        /// The policies, in their order.
        policies: Vec<PullPolicy>,
        /// Why the last one failed.
        last: Box<Self>,
    },
    /// The image is for other processors only.
    #[error("image `{name}` is for {found}, and guests are {wanted}")]
    Platform {
        /// The name.
        name: String,
        /// What it is for.
        found: String,
        /// What can be run.
        wanted: String,
    },
    /// The image alone is larger than the store may be.
    #[error(
        "the image takes {}, and the store of images may take {} (`image_quota` in [runners.microvm])",
        bytes(*.needs), bytes(*.quota)
    )]
    Quota {
        /// Bytes it takes at least.
        needs: u64,
        /// Bytes that all images may take.
        quota: u64,
    },
    /// An image is in use.
    #[error("image `{name}` is in use by a job")]
    InUse {
        /// The image.
        name: String,
    },
    /// Nothing of that name in the store.
    #[error("no image `{name}` in the store; `tart image ls` lists what is there")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A file of the user.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The pull was given up.
    #[error("the pull was interrupted")]
    Interrupted,
}

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The job's author or the administrator: a wrong name, a missing permission.
    Configuration,
    /// Whoever runs the registry or the network.
    Network,
    /// Anything else about the image.
    Image,
    /// The host.
    Host,
}

impl ImageError {
    /// Who can mend it.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Registry(error) if error.is_configuration() => Cause::Configuration,
            Self::Registry(error) if error.is_network() => Cause::Network,
            Self::Registry(RegistryError::File { .. }) => Cause::Host,
            Self::Registry(_) | Self::Content(_) => Cause::Image,
            Self::Policies { last, .. } => last.cause(),
            Self::NotHere { .. } | Self::Platform { .. } | Self::Quota { .. } | Self::Unknown { .. } => {
                Cause::Configuration
            }
            Self::Store(_) | Self::File { .. } | Self::InUse { .. } | Self::Interrupted => Cause::Host,
        }
    }

    /// Whether the disk is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        // The program that writes disks says so in words.
        if matches!(self, Self::Store(AssetError::Program { message, .. }) if message.contains("No space left"))
        {
            return true;
        }
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
            if error.downcast_ref::<std::io::Error>().is_some_and(full) {
                return true;
            }
            next = error.source();
        }
        false
    }
}
