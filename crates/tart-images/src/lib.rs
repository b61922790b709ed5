//! Images of jobs: pull policies, the store of pulled images, quota and eviction.
//!
//! [`Images::obtain`] turns the name of an image into a disk: by its pull policies it asks a registry, fetches the
//! layers that are missing, and has them merged into one read-only disk of `tart-assets`' store. Everything is named
//! by its content, so an image is fetched and converted once on a host, whatever names and runners ask for it.

mod admin;
mod archive;
mod error;
mod export;
mod images;
mod log;
mod policy;
mod progress;
mod pull;

pub use admin::{Listed, PruneReport};
pub use error::{Cause, ImageError};
pub use images::{ImageRequest, ImageSettings, Images, LeasedImage, chain, host_platform};
pub use log::{ImageLog, Level, Quiet};
pub use policy::PullPolicy;
