//! Caches of jobs in object stores that speak S3.
//!
//! Requests carry URLs that are signed for one object and a short time. They are made by the host and never leave it:
//! a guest sees neither the keys nor the URLs, only the bytes of its own archives.

mod error;
mod place;
mod store;

pub use error::{ObjectError, SettingsError};
pub use place::{Encryption, S3Settings};
pub use store::{Download, ObjectStore};
