//! Finding the image of a job.

use std::{fmt, sync::Arc};

use oci_spec::distribution::Reference;
use tart_assets::{ImageDisk, ImageName, Lease, PulledImage, Store};
use tart_oci::Limits;
use tart_registry::{CredentialSources, Registry, RegistrySettings, parse_reference};

use crate::{
    error::ImageError,
    log::{ImageLog, Level},
    policy::PullPolicy,
};

/// Digits of a digest that are shown of images without a name.
const SHOWN: usize = 12;

/// How images are fetched and kept.
#[derive(Debug, Clone)]
pub struct ImageSettings {
    /// Bytes that all images and layers may take; no bound without it.
    pub quota: Option<u64>,
    /// Registries.
    pub registry: RegistrySettings,
    /// Layers of one image that are fetched at the same time.
    pub parallel_downloads: usize,
    /// What an image may be.
    pub limits: Limits,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            quota: None,
            registry: RegistrySettings::default(),
            parallel_downloads: 3,
            limits: Limits::default(),
        }
    }
}

/// The platform of guests.
#[must_use]
pub fn host_platform() -> &'static str {
    "linux/amd64"
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// The name as it is written.
    pub name: String,
    /// `os/architecture[/variant]`, if not that of guests.
    pub platform: Option<String>,
    /// When the registry is asked: tried in their order.
    pub policies: Vec<PullPolicy>,
    /// Who the job is to the registry.
    pub credentials: CredentialSources,
}

/// An image that stays as long as this lives.
#[derive(Debug, Clone)]
pub struct LeasedImage {
    /// Its disk.
    pub disk: ImageDisk,
    /// What it is called in logs: its name and what identifies it.
    pub description: String,
    /// Digest of its manifest, `sha256:...`, of images that were fetched.
    pub manifest: Option<String>,
    _lease: Option<Arc<Lease>>,
}

/// The images of a host. Clones are the same.
#[derive(Clone)]
pub struct Images {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) settings: Arc<ImageSettings>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Images {
    /// The images of a store.
    ///
    /// # Errors
    /// If the settings of registries cannot be used, such as a file that is no certificate.
    pub fn open(store: Store, settings: ImageSettings) -> Result<Self, ImageError> {
        let registry = Registry::new(settings.registry.clone())?;
        Ok(Self { store, registry, settings: Arc::new(settings) })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The image of a job, fetched if the policies say so.
    ///
    /// A name that the administrator imported, or `default`, is found exactly as it is written, and no registry is
    /// asked. If the future is dropped, layers that are half here stay for the next try.
    ///
    /// # Errors
    /// Why there is no such image.
    pub async fn obtain(
        &self,
        request: &ImageRequest,
        log: &dyn ImageLog,
    ) -> Result<LeasedImage, ImageError> {
        if let Some(disk) = self.local(&request.name).await? {
            let digest: String = disk.digest.chars().take(SHOWN).collect();
            return Ok(LeasedImage {
                description: format!("Using image {} ({digest})", request.name),
                disk,
                manifest: None,
                _lease: None,
            });
        }
        let reference = parse_reference(&request.name)?;
        let wanted = Wanted {
            platform: request.platform.clone().unwrap_or_else(|| host_platform().to_owned()),
            reference,
            request,
            log,
        };
        let policies =
            if request.policies.is_empty() { &[PullPolicy::Always][..] } else { &request.policies };
        let shown = PullPolicy::list(policies);
        let text = format!("Using effective pull policy of {shown} for container {}", request.name);
        log.line(Level::Print, &text);
        let mut last = None;
        for (position, policy) in policies.iter().enumerate() {
            if position > 0 {
                let text = format!("Attempt #{}: Trying \"{policy}\" pull policy", position + 1);
                log.line(Level::Info, &text);
            }
            match self.by_policy(&wanted, *policy).await {
                Ok(image) => return Ok(image),
                Err(error) => {
                    let text = format!("Failed to pull image with policy \"{policy}\": {}", chain(&error));
                    log.line(Level::Warning, &text);
                    last = Some(error);
                }
            }
        }
        let last = Box::new(last.unwrap_or(ImageError::Interrupted));
        Err(ImageError::Policies { name: request.name.clone(), policies: policies.to_vec(), last })
    }

    /// What the administrator put here under that name.
    pub(crate) async fn local(&self, name: &str) -> Result<Option<ImageDisk>, ImageError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        blocking(move || Ok(store.local_image(&name)?)).await
    }

    async fn by_policy(&self, wanted: &Wanted<'_>, policy: PullPolicy) -> Result<LeasedImage, ImageError> {
        if policy != PullPolicy::Always
            && let Some(image) = self.known(wanted).await?
        {
            if policy == PullPolicy::IfNotPresent {
                let text = "Using locally found image version due to \"if-not-present\" pull policy";
                wanted.log.line(Level::Print, text);
            }
            return Ok(image);
        }
        if policy == PullPolicy::Never {
            return Err(ImageError::NotHere { name: wanted.request.name.clone(), policy });
        }
        self.fetch(wanted).await
    }

    /// The image that the name stood for when it was last looked up.
    async fn known(&self, wanted: &Wanted<'_>) -> Result<Option<LeasedImage>, ImageError> {
        let Some(image) = self.named(&wanted.reference.whole(), &wanted.platform).await? else {
            return Ok(None);
        };
        self.lease(wanted, image).await
    }

    pub(crate) async fn named(&self, name: &str, platform: &str) -> Result<Option<PulledImage>, ImageError> {
        let (store, name, platform) = (self.store.clone(), name.to_owned(), platform.to_owned());
        blocking(move || {
            Ok(match store.reference(&name, &platform)? {
                Some(manifest) => store.pulled(&manifest)?,
                None => None,
            })
        })
        .await
    }

    /// Asks the registry what the name stands for now, and fetches that if it is not here.
    async fn fetch(&self, wanted: &Wanted<'_>) -> Result<LeasedImage, ImageError> {
        let Wanted { reference, platform, request, log } = wanted;
        let found = request.credentials.resolve(reference).await?;
        for problem in &found.problems {
            log.line(Level::Warning, problem);
        }
        if let Some(source) = &found.source {
            log.line(Level::Print, &format!("Authenticating with credentials from {source}"));
        }
        log.line(Level::Print, &format!("Pulling docker image {} ...", request.name));
        let auth = found.auth;
        let digest = self.registry.digest(reference, &auth).await?.to_string();
        let by_digest = reference.clone_with_digest(digest);
        if let Some(image) = self.named(&by_digest.whole(), platform).await? {
            self.note(&reference.whole(), platform, &image.manifest).await?;
            if let Some(leased) = self.lease(wanted, image).await? {
                return Ok(leased);
            }
        }
        // Eviction may take an image away before it is leased, but hardly twice.
        for _ in 0..2 {
            let image = self.pull(wanted, &by_digest, &auth).await?;
            for name in [reference.whole(), by_digest.whole()] {
                self.note(&name, platform, &image.manifest).await?;
            }
            if let Some(leased) = self.lease(wanted, image).await? {
                return Ok(leased);
            }
        }
        Err(ImageError::Interrupted)
    }

    async fn note(&self, name: &str, platform: &str, manifest: &str) -> Result<(), ImageError> {
        let store = self.store.clone();
        let (name, platform, manifest) = (name.to_owned(), platform.to_owned(), manifest.to_owned());
        blocking(move || Ok(store.set_reference(&ImageName { name, platform, manifest })?)).await
    }

    async fn lease(
        &self,
        wanted: &Wanted<'_>,
        image: PulledImage,
    ) -> Result<Option<LeasedImage>, ImageError> {
        let store = self.store.clone();
        let disk = image.disk.clone();
        let Some(lease) = blocking(move || Ok(store.lease(&disk)?)).await? else { return Ok(None) };
        let name = &wanted.request.name;
        let repository = format!("{}/{}", wanted.reference.registry(), wanted.reference.repository());
        Ok(Some(LeasedImage {
            description: format!(
                "Using docker image {} for {name} with digest {repository}@{} ...",
                image.id, image.manifest
            ),
            disk: image.disk,
            manifest: Some(image.manifest),
            _lease: Some(Arc::new(lease)),
        }))
    }
}

/// A request with what was made of it.
pub(crate) struct Wanted<'a> {
    pub(crate) reference: Reference,
    pub(crate) platform: String,
    pub(crate) request: &'a ImageRequest,
    pub(crate) log: &'a dyn ImageLog,
}

/// Runs what blocks where that is fine.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ImageError::Interrupted)?
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
