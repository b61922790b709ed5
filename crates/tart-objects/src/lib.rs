//! Caches of jobs in object stores: S3, Google Cloud Storage, Azure Blob Storage.
//!
//! Requests carry URLs that are signed for one object and a short time. They are made by the host and never leave it:
//! a guest sees neither the keys nor the URLs, only the bytes of its own archives.

mod azure;
mod error;
mod gcs;
mod place;
mod s3;
mod store;

pub use azure::AzureSettings;
pub use error::{ObjectError, SettingsError};
pub use gcs::GcsSettings;
pub use s3::{Encryption, S3Settings};
pub use store::{Download, ObjectStore, Transfer};
