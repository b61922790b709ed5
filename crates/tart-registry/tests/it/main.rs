//! Registries that misbehave in every way, and a real one.

mod blobs;
mod manifests;
mod proxy;
#[cfg(feature = "slow-tests")]
mod real;
mod server;
mod tokens;
