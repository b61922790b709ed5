//! Client of OCI and Docker registries: references, credentials, manifests, layers with resume.
//!
//! A registry is chosen by whoever writes a job, so nothing that it answers is trusted: sizes are bounded, digests are
//! checked, and credentials go only to the registry they are for and to the token server it names.

mod auth;
mod blob;
mod call;
mod challenge;
mod connections;
mod credentials;
mod docker_config;
mod error;
mod helper;
mod manifest;
mod registry;
mod settings;
mod token;
mod tries;

pub use auth::Auth;
pub use credentials::{CredentialSources, Found, JobCredential};
pub use error::RegistryError;
pub use manifest::Resolved;
pub use registry::{Registry, parse_reference};
pub use settings::RegistrySettings;
