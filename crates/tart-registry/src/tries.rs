//! Where an image may be had, and how often to ask.

use std::time::Duration;

use oci_spec::distribution::Reference;
use url::Url;

use crate::{
    auth::Auth,
    connections::{Endpoint, host_of},
    error::RegistryError,
    registry::Registry,
};

/// Docker Hub is called by another name than it has.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The longest pause that a server is granted.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Mirrors one after the other, without the credentials, and then the registry of the name, again and again as long as
/// its failures may pass.
pub(crate) struct Tries<'a> {
    registry: &'a Registry,
    host: &'a str,
    mirrors: std::slice::Iter<'a, Url>,
    at_mirror: bool,
    auth: &'a Auth,
    attempt: u32,
    pause: Duration,
}

impl Tries<'_> {
    /// Where to try next.
    pub(crate) async fn next(&mut self) -> Result<(Endpoint, Auth), RegistryError> {
        loop {
            self.at_mirror = false;
            let error = match self.mirrors.next() {
                Some(mirror) => {
                    self.at_mirror = true;
                    match self.registry.mirror(mirror).await {
                        Ok(endpoint) => return Ok((endpoint, Auth::Anonymous)),
                        Err(error) => error,
                    }
                }
                None => match self.registry.endpoint(self.host).await {
                    Ok(endpoint) => return Ok((endpoint, self.auth.clone())),
                    Err(error) => error,
                },
            };
            self.failed(error).await?;
        }
    }

    /// Whether the last one was a mirror.
    pub(crate) fn at_mirror(&self) -> bool {
        self.at_mirror
    }

    /// Asks no mirrors any more.
    pub(crate) fn without_mirrors(mut self) -> Self {
        self.mirrors = [].iter();
        self
    }

    /// Waits before the next try; the error comes back if there should be none.
    pub(crate) async fn failed(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.at_mirror {
            tracing::debug!(%error, "the mirror does not have it");
            return Ok(());
        }
        if !error.is_worth_retrying() || self.attempt >= self.registry.settings().attempts {
            return Err(error);
        }
        let wanted = match &error {
            RegistryError::Answer { retry_after: Some(pause), .. } => (*pause).min(MAX_PAUSE),
            _ => self.pause,
        };
        tracing::debug!(host = self.host, attempt = self.attempt, %error, "the registry is asked again");
        tokio::time::sleep(wanted).await;
        self.attempt += 1;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}

impl Registry {
    /// The registries that may have an image, tried until one does.
    pub(crate) fn tries<'a>(&'a self, reference: &'a Reference, auth: &'a Auth) -> Tries<'a> {
        let is_hub = reference.registry() == HUB.0;
        Tries {
            registry: self,
            host: if is_hub { HUB.1 } else { reference.registry() },
            mirrors: if is_hub { self.settings().mirrors.iter() } else { [].iter() },
            at_mirror: false,
            auth,
            attempt: 1,
            pause: self.settings().backoff,
        }
    }

    async fn mirror(&self, mirror: &Url) -> Result<Endpoint, RegistryError> {
        let mut endpoint = self.endpoint(&host_of(mirror)).await?;
        endpoint.base.clone_from(mirror);
        Ok(endpoint)
    }
}
