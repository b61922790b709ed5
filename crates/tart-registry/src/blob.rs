//! Layers: streamed into files, resumed where they stopped, checked while they come.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use oci_spec::{distribution::Reference, image::Descriptor};
use reqwest::{Response, StatusCode, header};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _, BufWriter},
};

use crate::{
    auth::Auth,
    call::{Call, blob_call},
    connections::{Endpoint, unreachable},
    error::RegistryError,
    registry::Registry,
    tries::MAX_PAUSE,
};

/// A connection that brought this much was worth it: the patience for lost ones begins anew.
const WORTH: u64 = 1 << 20;

/// What is written at once, and read at once.
const BUFFER: usize = 1 << 18;

/// A file that grows, with the digest of what it has.
struct Growing {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Sha256,
    length: u64,
    /// What it will have.
    size: u64,
    /// Whether all of it came in this call, from the registry itself.
    pure: bool,
    /// For messages.
    what: String,
}

impl Registry {
    /// Fetches a blob into a file. What the file has already is taken for its beginning, and only the rest is fetched;
    /// when the connection is lost, the next try goes on where it stopped. `progress` hears how many bytes are there.
    ///
    /// Takes memory for one chunk of the connection and a buffer of 256 KiB, whatever the blob's size.
    ///
    /// # Errors
    /// If the registry does not give it; what came of it stays for the next call. If the bytes have another size or
    /// digest, the file is removed.
    pub async fn fetch_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        to: &Path,
        auth: &Auth,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let digest = descriptor.digest().to_string();
        let hex = digest.strip_prefix("sha256:").ok_or_else(|| RegistryError::Content {
            host: reference.registry().to_owned(),
            what: "a layer".to_owned(),
            problem: format!("`{digest}`: only SHA-256 is supported"),
        })?;
        let what = format!("layer {}", hex.get(..12).unwrap_or(hex));
        let mut growing = Growing::open(to, descriptor.size(), what).await?;
        progress(growing.length);
        let mut fetched = self.complete(reference, descriptor, auth, &mut growing, progress, true).await;
        if fetched.is_ok() && !growing.pure && growing.digest() != hex {
            tracing::warn!(path = %to.display(), "what was there of a layer is damaged: it is fetched anew");
            growing.restart().await?;
            growing.pure = true;
            fetched = self.complete(reference, descriptor, auth, &mut growing, progress, false).await;
        }
        let real = growing.digest();
        let fetched = fetched.and_then(|()| match real == hex {
            true => Ok(()),
            false => Err(growing.wrong(
                reference.registry(),
                format!("its digest is sha256:{real}: it was damaged or forged"),
            )),
        });
        if let Err(RegistryError::Content { .. }) = &fetched {
            growing.remove().await;
        }
        fetched
    }

    /// Fetches until the file has its size.
    async fn complete(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        auth: &Auth,
        growing: &mut Growing,
        progress: &(dyn Fn(u64) + Send + Sync),
        mirrors: bool,
    ) -> Result<(), RegistryError> {
        let most = self.settings().attempts.max(1);
        let (mut losses, mut pause) = (0, self.settings().backoff);
        while growing.length < growing.size {
            let before = growing.length;
            let tries = self.tries(reference, auth);
            let mut tries = if mirrors { tries } else { tries.without_mirrors() };
            let lost = loop {
                let (endpoint, auth) = tries.next().await?;
                growing.pure &= !tries.at_mirror();
                match self.receive(&endpoint, reference, descriptor, &auth, growing, progress).await {
                    Ok(lost) => break lost,
                    Err(error) => tries.failed(error).await?,
                }
            };
            if growing.length >= growing.size {
                break;
            }
            if growing.length >= before.saturating_add(WORTH) {
                (losses, pause) = (0, self.settings().backoff);
            }
            losses += 1;
            if losses >= most {
                let problem = format!("it ends after {} of {} bytes", growing.length, growing.size);
                return Err(lost.unwrap_or_else(|| growing.wrong(reference.registry(), problem)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        Ok(())
    }

    /// Receives what is missing, or as much of it as comes. Gives why the connection was lost, if it was.
    async fn receive(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        auth: &Auth,
        growing: &mut Growing,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Option<RegistryError>, RegistryError> {
        let what = growing.what.clone();
        let call = Call { from: growing.length, ..blob_call(reference, descriptor.digest().as_ref(), &what) };
        match self.send(endpoint, reference, auth, call).await {
            // What is here is not the beginning of what is there.
            Err(RegistryError::Answer { status: 416, .. }) => growing.restart().await.map(|()| None),
            response => growing.receive(endpoint, response?, progress).await,
        }
    }
}

impl Growing {
    async fn open(path: &Path, size: u64, what: String) -> Result<Self, RegistryError> {
        let path = path.to_owned();
        let failed = |source| RegistryError::File { action: "write", path: path.clone(), source };
        // Made here and not by a thread, which would still make it after the fetch was given up.
        let mut options = std::fs::File::options();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
        let hashed = tokio::task::spawn_blocking(move || hash_beginning(file, size)).await;
        let (file, hasher, length) = hashed.map_err(std::io::Error::other).and_then(|r| r).map_err(failed)?;
        let pure = length == 0;
        let file = BufWriter::with_capacity(BUFFER, File::from_std(file));
        Ok(Self { path, file, hasher, length, size, pure, what })
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> RegistryError + use<> {
        let path = self.path.clone();
        move |source| RegistryError::File { action: "write", path: path.clone(), source }
    }

    async fn restart(&mut self) -> Result<(), RegistryError> {
        let failed = self.failed();
        self.file.flush().await.map_err(&failed)?;
        self.file.get_ref().set_len(0).await.map_err(&failed)?;
        self.file.rewind().await.map_err(&failed)?;
        (self.hasher, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    /// Writes what comes. A lost connection is no error if it brought something; it is given back.
    async fn receive(
        &mut self,
        endpoint: &Endpoint,
        mut response: Response,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Option<RegistryError>, RegistryError> {
        match start(&response) {
            Some(start) if start == self.length => {}
            // Some servers send everything again.
            Some(0) => self.restart().await?,
            // This is of no use, but the whole may be.
            _ => return self.restart().await.map(|()| None),
        }
        let (before, failed) = (self.length, self.failed());
        let lost = loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break None,
                Err(error) if self.length == before => return Err(unreachable(&endpoint.host, &error)),
                Err(error) => {
                    tracing::debug!(host = endpoint.host, %error, "the connection was lost");
                    break Some(unreachable(&endpoint.host, &error));
                }
            };
            if self.length + chunk.len() as u64 > self.size {
                let problem = format!("it has more than the {} bytes that the manifest says", self.size);
                // Nothing of it can be trusted.
                self.restart().await?;
                return Err(self.wrong(&endpoint.host, problem));
            }
            self.file.write_all(&chunk).await.map_err(&failed)?;
            self.hasher.update(&chunk);
            self.length += chunk.len() as u64;
            progress(self.length);
        };
        self.file.flush().await.map_err(&failed)?;
        Ok(lost)
    }

    fn digest(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }

    fn wrong(&self, host: &str, problem: String) -> RegistryError {
        RegistryError::Content { host: host.to_owned(), what: self.what.clone(), problem }
    }

    async fn remove(&self) {
        if let Err(error) = tokio::fs::remove_file(&self.path).await {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a damaged layer");
        }
    }
}

/// Where in the blob an answer begins, if it says so.
fn start(response: &Response) -> Option<u64> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Some(0);
    }
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Goes to a file's end, with the digest of what is in it. What is longer than it may be is no beginning.
fn hash_beginning(mut file: std::fs::File, most: u64) -> std::io::Result<(std::fs::File, Sha256, u64)> {
    let mut hasher = Sha256::new();
    if file.metadata()?.len() > most {
        file.set_len(0)?;
    }
    let mut buffer = vec![0; BUFFER];
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
