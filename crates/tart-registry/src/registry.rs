//! What registries are asked.

use std::{fmt, sync::Arc};

use oci_spec::{
    distribution::Reference,
    image::{Descriptor, Digest, ImageConfiguration, Platform},
};
use reqwest::Method;

use crate::{
    auth::Auth,
    call::{Call, blob_call, bounded, manifest_call},
    connections::{Connections, Endpoint, check_mirror},
    error::RegistryError,
    manifest::{Document, MAX_CONFIG, MAX_MANIFEST, Resolved, document, sha256},
    settings::RegistrySettings,
    token::Authorizations,
};

/// Digest of what was answered (Docker registry API).
const CONTENT_DIGEST: &str = "docker-content-digest";

/// Registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    settings: RegistrySettings,
    connections: Connections,
    authorizations: Authorizations,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

/// Reads the name of an image as Docker does: `busybox` is `docker.io/library/busybox:latest`.
///
/// # Errors
/// If it is none.
pub fn parse_reference(text: &str) -> Result<Reference, RegistryError> {
    let text = text.trim();
    let name = text.split(['@', ':']).next().unwrap_or_default();
    text.parse::<Reference>().map_err(|error| RegistryError::Name {
        name: text.chars().take(300).collect(),
        problem: match error {
            // The domain may have any case, and then there is a slash.
            _ if name.contains(char::is_uppercase) => "repositories are written in lower case".to_owned(),
            other => other.to_string(),
        },
    })
}

impl Registry {
    /// Registries reached by these settings.
    ///
    /// # Errors
    /// If a mirror cannot be one. Files of certificates are read when their registry is called.
    pub fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        settings.mirrors.iter().try_for_each(check_mirror)?;
        let inner = Inner {
            settings,
            connections: Connections::default(),
            authorizations: Authorizations::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn settings(&self) -> &RegistrySettings {
        &self.inner.settings
    }

    pub(crate) fn authorizations(&self) -> &Authorizations {
        &self.inner.authorizations
    }

    /// The way to a registry.
    pub(crate) async fn endpoint(&self, host: &str) -> Result<Endpoint, RegistryError> {
        self.inner.connections.endpoint(host, self.settings()).await
    }

    /// The digest that a name stands for now. Registries that limit pulls do not count this call.
    ///
    /// # Errors
    /// If the registry does not have it, does not give it to this user, or is not reached.
    pub async fn digest(&self, reference: &Reference, auth: &Auth) -> Result<Digest, RegistryError> {
        let mut tries = self.tries(reference, auth);
        loop {
            let (endpoint, auth) = tries.next().await?;
            match self.digest_at(&endpoint, reference, &auth).await {
                Ok(digest) => return Ok(digest),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    async fn digest_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: &Auth,
    ) -> Result<Digest, RegistryError> {
        let what = reference.whole();
        let call = Call { method: Method::HEAD, ..manifest_call(reference, &what) };
        match self.send(endpoint, reference, auth, call).await {
            Ok(response) => {
                let said = response.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
                if let Some(digest) = said.filter(|said| said.starts_with("sha256:")) {
                    return parse_digest(digest, &endpoint.host, &what);
                }
            }
            Err(RegistryError::Answer { status: 405 | 501, .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(self.manifest(endpoint, reference, auth).await?.0)
    }

    /// The image that a name stands for on a platform.
    ///
    /// # Errors
    /// As [`Self::digest`], if no image fits, or if what the registry sends cannot be right.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        auth: &Auth,
    ) -> Result<Resolved, RegistryError> {
        let mut tries = self.tries(reference, auth);
        loop {
            let (endpoint, auth) = tries.next().await?;
            match self.resolve_at(&endpoint, reference, platform, &auth).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        platform: &Platform,
        auth: &Auth,
    ) -> Result<Resolved, RegistryError> {
        let what = reference.whole();
        let content = |problem: String| RegistryError::Content {
            host: endpoint.host.clone(),
            what: what.clone(),
            problem,
        };
        let (digest, json) = self.manifest(endpoint, reference, auth).await?;
        let (index_digest, digest, manifest) = match document(&json).map_err(content)? {
            Document::Manifest(manifest) => (None, digest, *manifest),
            Document::Index(index) => {
                let chosen = tart_oci::select(&index, platform)?;
                let chosen = reference.clone_with_digest(chosen.digest().to_string());
                let (inner, json) = self.manifest(endpoint, &chosen, auth).await?;
                match document(&json).map_err(content)? {
                    Document::Manifest(manifest) => (Some(digest), inner, *manifest),
                    Document::Index(_) => return Err(content("an index in an index".to_owned())),
                }
            }
        };
        let config_json = self.small_blob(endpoint, reference, manifest.config(), auth).await?;
        let config: ImageConfiguration = serde_json::from_slice(&config_json)
            .map_err(|error| content(format!("its configuration cannot be read: {error}")))?;
        Ok(Resolved {
            reference: reference.clone_with_digest(digest.to_string()),
            index_digest,
            manifest_digest: digest,
            manifest,
            config,
            config_json,
        })
    }

    /// Fetches a manifest and checks its digest.
    async fn manifest(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: &Auth,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        let what = reference.whole();
        if let Some(digest) = reference.digest() {
            parse_digest(digest, &endpoint.host, &what)?;
        }
        let response = self.send(endpoint, reference, auth, manifest_call(reference, &what)).await?;
        let said = response.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
        // What a registry computes in another way is of no use; what the name has was checked above.
        let said = said.filter(|said| said.starts_with("sha256:"));
        let wanted = reference.digest().or(said).map(str::to_owned);
        let json = bounded(endpoint, response, MAX_MANIFEST, &what).await?;
        let real = sha256(&json);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != real) {
            let problem = format!("its digest is {real} and should be {wanted}: it was damaged or forged");
            return Err(RegistryError::Content { host: endpoint.host.clone(), what, problem });
        }
        Ok((parse_digest(&real, &endpoint.host, &what)?, json))
    }

    async fn small_blob(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        auth: &Auth,
    ) -> Result<Vec<u8>, RegistryError> {
        let digest = descriptor.digest().to_string();
        let call = blob_call(reference, &digest, &digest);
        let response = self.send(endpoint, reference, auth, call).await?;
        let bytes = bounded(endpoint, response, MAX_CONFIG, &digest).await?;
        let real = sha256(&bytes);
        if real != digest {
            let problem = format!("its digest is {real}: it was damaged or forged");
            return Err(RegistryError::Content { host: endpoint.host.clone(), what: digest, problem });
        }
        Ok(bytes)
    }
}

fn parse_digest(text: &str, host: &str, what: &str) -> Result<Digest, RegistryError> {
    let digest = text.parse::<Digest>().ok().filter(|_| text.starts_with("sha256:"));
    digest.ok_or_else(|| RegistryError::Content {
        host: host.to_owned(),
        what: what.to_owned(),
        problem: format!("`{}` is no SHA-256 digest", text.escape_debug()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let full = |text: &str| parse_reference(text).unwrap().whole();
        assert_eq!(full("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("user/app:1"), "docker.io/user/app:1");
        assert_eq!(full("docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("index.docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        assert_eq!(full(" Registry.example.com/a "), "Registry.example.com/a:latest");
        assert_eq!(full("localhost:5000/a/b/c"), "localhost:5000/a/b/c:latest");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(full(&format!("r.example.com/a:1@{digest}")), format!("r.example.com/a:1@{digest}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let problem = |text: &str| parse_reference(text).unwrap_err().to_string();
        insta::assert_snapshot!(problem("Busybox"), @"`Busybox` is no name of an image: repositories are written in lower case");
        insta::assert_snapshot!(problem("a:b:c"), @"`a:b:c` is no name of an image: invalid reference format");
        insta::assert_snapshot!(problem(""), @"`` is no name of an image: repository name must have at least one component");
        insta::assert_snapshot!(problem("a@sha256:00"), @"`a@sha256:00` is no name of an image: invalid reference format");
    }

    proptest! {
        #[test]
        fn a_name_never_leads_to_another_path(text in ".*") {
            if let Ok(reference) = parse_reference(&text) {
                let call = manifest_call(&reference, "");
                prop_assert!(!call.path.contains("..") && !call.path.contains(['?', '#', '%', '\\']));
            }
        }
    }
}
