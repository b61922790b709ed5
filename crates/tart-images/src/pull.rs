//! Fetching an image: manifest, layers in parallel, one disk.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use oci_spec::{distribution::Reference, image::Descriptor};
use tart_assets::{Lease, NewImage, PulledImage};
use tart_oci::{Layer, LayerIndex, LayerSource};
use tart_registry::{Auth, Resolved};
use tokio::time::interval;
use tokio_util::task::TaskTracker;

use crate::{
    error::{Cause, ImageError},
    images::{Images, Wanted, blocking},
    log::{ImageLog, Level},
    progress::{INTERVAL, LayerProgress, PullProgress},
};

/// A layer to be fetched.
struct Fetch<'a> {
    by_digest: &'a Reference,
    auth: &'a Auth,
    descriptor: &'a Descriptor,
    diff_id: &'a str,
    position: usize,
    progress: Arc<LayerProgress>,
    work: &'a Work,
    log: &'a dyn ImageLog,
}

/// The blocking work of a pull, which goes on in its threads when the pull's future is dropped.
#[derive(Debug, Default)]
struct Work {
    stop: Arc<AtomicBool>,
    storing: TaskTracker,
}

impl Work {
    /// Tells what only reads, or makes a disk, to end.
    fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Waits until no thread is about to store a layer.
    async fn stored(&self) {
        self.storing.close();
        self.storing.wait().await;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Images {
    /// The image that a digest stands for, fetched if it is not here. If the disk is full, images that are not in
    /// use make room once.
    pub(crate) async fn pull(
        &self,
        wanted: &Wanted<'_>,
        by_digest: &Reference,
        auth: &Auth,
    ) -> Result<PulledImage, ImageError> {
        match self.pull_once(wanted, by_digest, auth).await {
            Err(error) if error.is_disk_full() => {
                let text = "The disk of the image store is full: removing images that are not in use";
                wanted.log.line(Level::Warning, text);
                self.evict(0, Vec::new()).await?;
                self.pull_once(wanted, by_digest, auth).await
            }
            result => result,
        }
    }

    async fn pull_once(
        &self,
        wanted: &Wanted<'_>,
        by_digest: &Reference,
        auth: &Auth,
    ) -> Result<PulledImage, ImageError> {
        let platform = tart_oci::parse_platform(&wanted.platform)?;
        let resolved = self.registry.resolve(by_digest, &platform, auth).await?;
        let found = &resolved.config;
        if (found.os(), found.architecture()) != (platform.os(), platform.architecture()) {
            return Err(ImageError::Platform {
                name: wanted.request.name.clone(),
                found: format!("{}/{}", found.os(), found.architecture()),
                wanted: tart_oci::shown(&platform),
            });
        }
        let manifest = resolved.manifest_digest.to_string();
        let _lock = self.alone(&manifest, wanted.log).await?;
        let (store, digest) = (self.store.clone(), manifest.clone());
        if let Some(image) = blocking(move || Ok(store.pulled(&digest)?)).await? {
            return Ok(image);
        }
        let descriptors = resolved.manifest.layers();
        let needs: u64 = descriptors.iter().map(Descriptor::size).sum();
        self.make_room(needs).await?;
        let made = self.make(wanted, by_digest, auth, &resolved).await;
        if made.as_ref().is_err_and(|error| error.cause() == Cause::Image || error.is_disk_full()) {
            self.discard(descriptors).await?;
        }
        self.keep_quota(made?).await
    }

    /// Fetches layers and makes a disk of them.
    async fn make(
        &self,
        wanted: &Wanted<'_>,
        by_digest: &Reference,
        auth: &Auth,
        resolved: &Resolved,
    ) -> Result<PulledImage, ImageError> {
        let work = Work::default();
        let fetched = self.layers(wanted, by_digest, auth, resolved, &work).await;
        if fetched.is_err() {
            work.stored().await;
        }
        let (layers, indexes, leases) = fetched?;
        let image = NewImage {
            manifest: resolved.manifest_digest.to_string(),
            id: resolved.manifest.config().digest().to_string(),
            config: tart_oci::image_config(&resolved.config),
            details: vec![
                ("name".to_owned(), wanted.reference.whole()),
                ("platform".to_owned(), wanted.platform.clone()),
            ],
        };
        let image = self.convert(image, layers, indexes, &work, wanted.log).await;
        drop(leases);
        image
    }

    /// Leaves nothing of an image that cannot be used.
    async fn discard(&self, layers: &[Descriptor]) -> Result<(), ImageError> {
        let digests: Vec<_> = layers.iter().map(|layer| layer.digest().to_string()).collect();
        let store = self.store.clone();
        blocking(move || Ok(digests.iter().try_for_each(|digest| store.discard_layer(digest))?)).await
    }

    /// Fetches the layers that are not here, several at a time, and reads their headers.
    async fn layers(
        &self,
        wanted: &Wanted<'_>,
        by_digest: &Reference,
        auth: &Auth,
        resolved: &Resolved,
        work: &Work,
    ) -> Result<(Vec<Layer>, Vec<LayerIndex>, Vec<Lease>), ImageError> {
        let descriptors = resolved.manifest.layers();
        let diff_ids = resolved.config.rootfs().diff_ids();
        tart_oci::check_layers(descriptors, diff_ids)?;
        let mut progress = PullProgress::default();
        let mut fetches = Vec::new();
        for (position, (descriptor, diff_id)) in descriptors.iter().zip(diff_ids).enumerate() {
            let fetch = Fetch {
                by_digest,
                auth,
                descriptor,
                diff_id,
                position,
                progress: progress.add(descriptor.digest().as_ref(), descriptor.size()),
                work,
                log: wanted.log,
            };
            fetches.push(self.indexed_layer(fetch));
        }
        let parallel = self.settings.parallel_downloads.max(1);
        let fetched = stream::iter(fetches).buffered(parallel).try_collect::<Vec<_>>();
        let fetched = reported(fetched, &progress, wanted.log).await?;
        let (mut layers, mut indexes, mut leases) = (Vec::new(), Vec::new(), Vec::new());
        for (layer, index, lease) in fetched {
            layers.push(layer);
            indexes.push(index);
            leases.push(lease);
        }
        Ok((layers, indexes, leases))
    }

    /// One layer with its headers.
    async fn indexed_layer(&self, fetch: Fetch<'_>) -> Result<(Layer, LayerIndex, Lease), ImageError> {
        let (path, lease) = self.layer(&fetch).await?;
        let source = Arc::new(Interruptible { inner: path, stop: fetch.work.stop() });
        let layer = Layer::new(source, fetch.descriptor, fetch.diff_id)?;
        let (indexed, limits, position) = (layer.clone(), self.settings.limits.clone(), fetch.position);
        let index = blocking(move || Ok(tart_oci::index(&indexed, position, &limits)?)).await?;
        Ok((layer, index, lease))
    }

    /// One layer: from the store, or fetched by this process or by another one.
    async fn layer(&self, fetch: &Fetch<'_>) -> Result<(PathBuf, Lease), ImageError> {
        let Fetch { by_digest, auth, descriptor, progress, log, .. } = fetch;
        let digest = descriptor.digest().to_string();
        let lock = self.alone(&digest, *log).await?;
        let (store, wanted) = (self.store.clone(), digest.clone());
        let here = move || {
            Ok(match store.layer(&wanted)? {
                Some(path) => store.lease_file(&path)?.map(|lease| (path, lease)),
                None => None,
            })
        };
        if let Some(found) = blocking(here).await? {
            progress.finish();
            return Ok(found);
        }
        let partial = self.store.partial_layer(&digest)?;
        let report = |bytes: u64| progress.set(bytes);
        self.registry.fetch_blob(by_digest, descriptor, &partial, auth, &report).await?;
        progress.finish();
        let (store, storing) = (self.store.clone(), fetch.work.storing.token());
        let stored = blocking(move || {
            let path = store.add_layer(&digest)?;
            let lease = store.lease_file(&path)?.ok_or(ImageError::Interrupted)?;
            // If nobody waits any more these go in this order: who waits for the token finds nothing locked.
            Ok((path, lease, lock, storing))
        });
        let (path, lease, ..) = stored.await?;
        Ok((path, lease))
    }

    /// Merges the layers into a disk of the store.
    async fn convert(
        &self,
        image: NewImage,
        layers: Vec<Layer>,
        indexes: Vec<LayerIndex>,
        work: &Work,
        log: &dyn ImageLog,
    ) -> Result<PulledImage, ImageError> {
        log.line(Level::Print, &format!("Making a disk of {} layers ...", layers.len()));
        let (store, limits, flag) = (self.store.clone(), self.settings.limits.clone(), work.stop());
        blocking(move || {
            let plan = tart_oci::merge(indexes, &limits)?;
            store.add_pulled(image, |out| {
                let mut out = Interruptible { inner: out, stop: flag };
                plan.write(&layers, &mut out)?;
                Ok(())
            })
        })
        .await
    }

    /// Waits until no other process of this host fetches the same.
    async fn alone(&self, digest: &str, log: &dyn ImageLog) -> Result<std::fs::File, ImageError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (store, wanted) = (self.store.clone(), digest.to_owned());
        let waiting = move || {
            // Nobody listens once the lock is there.
            let _gone = sender.send(());
        };
        let lock = blocking(move || Ok(store.lock_digest(&wanted, waiting)?));
        tokio::pin!(lock);
        tokio::select! {
            lock = &mut lock => return lock,
            Ok(()) = receiver => {}
        }
        let short: String = digest.chars().take("sha256:".len() + 12).collect();
        log.line(Level::Print, &format!("Waiting for another job of this host that fetches {short} ..."));
        lock.await
    }

    async fn make_room(&self, needs: u64) -> Result<(), ImageError> {
        let Some(quota) = self.settings.quota else { return Ok(()) };
        if needs > quota {
            return Err(ImageError::Quota { needs, quota });
        }
        self.evict(quota - needs, Vec::new()).await
    }

    /// Evicts others if the new image needs their room.
    async fn keep_quota(&self, image: PulledImage) -> Result<PulledImage, ImageError> {
        let Some(quota) = self.settings.quota else { return Ok(image) };
        if image.size > quota {
            let (store, manifest) = (self.store.clone(), image.manifest.clone());
            blocking(move || Ok(store.remove_pulled(&manifest)?)).await?;
            return Err(ImageError::Quota { needs: image.size, quota });
        }
        self.evict(quota, vec![image.manifest.clone()]).await?;
        Ok(image)
    }

    async fn evict(&self, quota: u64, keep: Vec<String>) -> Result<(), ImageError> {
        let store = self.store.clone();
        let evicted = blocking(move || Ok(store.evict(quota, &keep)?)).await?;
        if evicted.bytes > 0 {
            tracing::info!(
                images = evicted.images.len(),
                layers = evicted.layers,
                bytes = evicted.bytes,
                "removed images that were not used for longest"
            );
        }
        Ok(())
    }
}

/// Writes a line of progress now and then, until the work is done.
async fn reported<T>(
    work: impl Future<Output = Result<T, ImageError>>,
    progress: &PullProgress,
    log: &dyn ImageLog,
) -> Result<T, ImageError> {
    let mut ticks = interval(INTERVAL);
    // The first is at once.
    ticks.tick().await;
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = ticks.tick() => log.line(Level::Print, &progress.line()),
        }
    };
    if result.is_ok() {
        log.line(Level::Print, &progress.line());
    }
    result
}

/// A file, or a stream, whose use ends when the pull is given up.
struct Interruptible<T> {
    inner: T,
    stop: Arc<AtomicBool>,
}

impl<T> Interruptible<T> {
    fn check(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the pull was interrupted"));
        }
        Ok(())
    }
}

impl LayerSource for Interruptible<PathBuf> {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.check()?;
        let file = std::fs::File::open(&self.inner)?;
        Ok(Box::new(Interruptible { inner: file, stop: Arc::clone(&self.stop) }))
    }
}

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.read(buffer)
    }
}

impl<W: Write> Write for Interruptible<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
