//! Layers: streamed into files, resumed where they stopped, checked while they come.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use oci_spec::{distribution::Reference, image::Descriptor};
use reqwest::{Response, StatusCode, header};
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncWriteExt as _};

use crate::{
    auth::Auth,
    connections::{Endpoint, unreachable},
    error::RegistryError,
    registry::{Call, Registry, blob_call},
};

/// A file that grows, with the digest of what it has.
struct Growing {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
    /// What it will have.
    size: u64,
    /// For messages.
    what: String,
}

impl Registry {
    /// Fetches a blob into a file. What the file has already is taken for its beginning, and only the rest is fetched;
    /// when the connection is lost, the next try goes on where it stopped. `progress` hears how many bytes are there.
    ///
    /// Takes memory for one chunk of the connection, whatever the blob's size.
    ///
    /// # Errors
    /// If the registry does not give it, or the bytes have another size or digest: then the file is removed.
    pub async fn fetch_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        to: &Path,
        auth: &Auth,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let digest = descriptor.digest().to_string();
        let Some(hex) = digest.strip_prefix("sha256:") else {
            let problem = format!("`{digest}`: only SHA-256 is supported");
            return Err(RegistryError::Content {
                host: reference.registry().to_owned(),
                what: digest.clone(),
                problem,
            });
        };
        let what = format!("layer {}", hex.get(..12).unwrap_or(hex));
        let mut growing = Growing::open(to, descriptor.size(), what).await?;
        progress(growing.length);
        let mut barren = 0;
        while growing.length < descriptor.size() {
            let before = growing.length;
            let mut tries = self.tries(reference, auth);
            loop {
                let (endpoint, auth) = tries.next().await?;
                let got = self.receive(&endpoint, reference, descriptor, &auth, &mut growing, progress);
                match got.await {
                    Ok(()) => break,
                    Err(error) => tries.failed(error).await?,
                }
            }
            // Any number of lost connections is fine as long as each brings something.
            barren = if growing.length > before { 0 } else { barren + 1 };
            if barren >= self.settings().attempts.max(1) {
                return Err(RegistryError::Content {
                    host: reference.registry().to_owned(),
                    what: growing.what,
                    problem: format!("it ends after {} of {} bytes", growing.length, descriptor.size()),
                });
            }
        }
        growing.finish(hex, reference.registry()).await
    }

    /// Receives what is missing, or as much of it as comes.
    async fn receive(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        auth: &Auth,
        growing: &mut Growing,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let what = growing.what.clone();
        let call = Call { from: growing.length, ..blob_call(reference, descriptor.digest().as_ref(), &what) };
        match self.send(endpoint, reference, auth, call).await {
            // What is here is not the beginning of what is there.
            Err(RegistryError::Answer { status: 416, .. }) => growing.restart().await,
            response => growing.receive(endpoint, response?, progress).await,
        }
    }
}

impl Growing {
    async fn open(path: &Path, size: u64, what: String) -> Result<Self, RegistryError> {
        let path = path.to_owned();
        let opened = path.clone();
        let hashed = tokio::task::spawn_blocking(move || hash_beginning(&opened, size)).await;
        let failed = |source| RegistryError::File { action: "write", path: path.clone(), source };
        let (file, hasher, length) = hashed.map_err(std::io::Error::other).and_then(|r| r).map_err(failed)?;
        Ok(Self { path, file: File::from_std(file), hasher, length, size, what })
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> RegistryError + use<> {
        let path = self.path.clone();
        move |source| RegistryError::File { action: "write", path: path.clone(), source }
    }

    async fn restart(&mut self) -> Result<(), RegistryError> {
        use tokio::io::AsyncSeekExt as _;
        let failed = self.failed();
        self.file.set_len(0).await.map_err(&failed)?;
        self.file.rewind().await.map_err(&failed)?;
        (self.hasher, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    /// Writes what comes. A lost connection is no error if it brought something.
    async fn receive(
        &mut self,
        endpoint: &Endpoint,
        mut response: Response,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let size = self.size;
        if self.length > 0 && !continues(&response, self.length) {
            self.restart().await?;
        }
        let (before, failed) = (self.length, self.failed());
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) if self.length == before => return Err(unreachable(&endpoint.host, &error)),
                Err(error) => {
                    tracing::debug!(host = endpoint.host, %error, "the connection was lost");
                    break;
                }
            };
            if self.length + chunk.len() as u64 > size {
                let problem = format!("it has more than the {size} bytes that the manifest says");
                // Nothing of it can be trusted.
                self.remove().await;
                return Err(RegistryError::Content {
                    host: endpoint.host.clone(),
                    what: self.what.clone(),
                    problem,
                });
            }
            self.file.write_all(&chunk).await.map_err(&failed)?;
            self.hasher.update(&chunk);
            self.length += chunk.len() as u64;
            progress(self.length);
        }
        self.file.flush().await.map_err(&failed)
    }

    async fn finish(mut self, hex: &str, host: &str) -> Result<(), RegistryError> {
        let failed = self.failed();
        self.file.flush().await.map_err(&failed)?;
        let real = hex::encode(self.hasher.clone().finalize());
        if real == hex {
            return Ok(());
        }
        self.remove().await;
        Err(RegistryError::Content {
            host: host.to_owned(),
            what: self.what,
            problem: format!("its digest is sha256:{real}: it was damaged or forged"),
        })
    }

    async fn remove(&self) {
        if let Err(error) = tokio::fs::remove_file(&self.path).await {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a damaged layer");
        }
    }
}

/// Whether an answer goes on where the file ends. Some servers send everything again.
fn continues(response: &Response, length: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && start == Some(length)
}

/// Opens a file at its end, with the digest of what is in it. What is longer than it may be is no beginning.
fn hash_beginning(path: &Path, most: u64) -> std::io::Result<(std::fs::File, Sha256, u64)> {
    let mut file = std::fs::File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    let mut hasher = Sha256::new();
    if file.metadata()?.len() > most {
        file.set_len(0)?;
    }
    let mut buffer = vec![0; 1 << 17];
    let mut length = 0;
    loop {
        let part = file.read(&mut buffer)?;
        if part == 0 {
            break;
        }
        hasher.update(buffer.get(..part).unwrap_or_default());
        length += part as u64;
    }
    file.seek(SeekFrom::Start(length))?;
    Ok((file, hasher, length))
}
