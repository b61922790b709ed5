//! Where artifacts of jobs are kept: at the job's server, or on this host for jobs that no server sent.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tart_config::MicroVm;
use tart_gitlab::{ArtifactUpload, DownloadError, DownloadFrom, JobHandle};
use tart_spec::Dependency;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::cache::{CacheScope, CacheStore, blocking, pieces};
use crate::host::state_dir;

/// Name of the directory of artifacts, in the state directory.
const DIRECTORY: &str = "artifacts";

/// The kind of what other jobs get: all else are reports.
const ARCHIVE: &str = "archive";

/// Tries of a download.
pub(crate) const DOWNLOADS: u32 = 3;

/// Where the artifacts of a job go, and where those of other jobs come from.
#[derive(Debug, Clone)]
pub enum ArtifactPlace {
    /// The job on its server.
    Server(JobHandle),
    /// This host.
    Local {
        /// Those of all jobs.
        artifacts: LocalArtifacts,
        /// The job's name.
        job: String,
    },
}

/// Artifacts of jobs that no server sent. A job's are those of its last run, whatever it was run for. The host keeps the
/// bytes as the guest made them, bounded by `cache_quota`.
#[derive(Debug, Clone)]
pub struct LocalArtifacts {
    store: CacheStore,
    /// Where the jobs are from.
    directory: PathBuf,
}

/// Artifacts that come in.
pub(crate) struct Arrival {
    pub(crate) pieces: BoxStream<'static, io::Result<Bytes>>,
    /// Where from, if not from the server itself.
    pub(crate) storage: Option<String>,
}

/// Why artifacts were not taken or given.
pub(crate) struct Refusal {
    pub(crate) text: String,
    /// How many tries there are in all.
    pub(crate) tries: u32,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { text: error.to_string(), tries: 1 }
    }
}

impl ArtifactPlace {
    /// The place in the words of the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Server(_) => "coordinator",
            Self::Local { .. } => "this host",
        }
    }

    /// Tries once to leave artifacts there. If `content` fails, nothing is left.
    pub(crate) async fn put(
        &self,
        upload: &ArtifactUpload,
        content: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), Refusal> {
        match self {
            Self::Server(server) => server
                .upload_artifacts(upload, content)
                .await
                .map_err(|error| Refusal { tries: error.tries(), text: error.to_string() }),
            Self::Local { artifacts, job } => Ok(artifacts.put(job, &upload.kind, content).await?),
        }
    }

    /// Tries once to get those of another job, with `from`, from an object storage.
    pub(crate) async fn get(&self, other: &Dependency, from: DownloadFrom) -> Result<Arrival, Refusal> {
        match self {
            Self::Server(server) => {
                let token = other.token.clone().into();
                let got = server.client().download_artifacts(other.id, &token, from).await;
                let archive = got.map_err(|error| Refusal {
                    text: error.to_string(),
                    tries: if matches!(error, DownloadError::Failed(_)) { DOWNLOADS } else { 1 },
                })?;
                let storage = archive.storage.clone();
                let pieces = futures::stream::try_unfold(archive, |mut archive| async move {
                    let piece = archive.chunk().await.map_err(io::Error::other)?;
                    Ok(piece.map(|piece| (piece, archive)))
                });
                Ok(Arrival { pieces: pieces.boxed(), storage })
            }
            Self::Local { artifacts, .. } => {
                let (artifacts, job) = (artifacts.clone(), other.name.clone());
                let file = blocking(move || artifacts.find(&job, ARCHIVE)).await?;
                let gone = || {
                    io::Error::new(io::ErrorKind::NotFound, "they are not kept any more; run that job again")
                };
                Ok(Arrival { pieces: pieces(file.ok_or_else(gone)?).boxed(), storage: None })
            }
        }
    }
}

impl LocalArtifacts {
    /// Those of jobs of a directory, in the state directory of a configuration.
    ///
    /// # Errors
    /// If there can be none.
    pub fn open(config: &MicroVm, directory: &Path) -> io::Result<Self> {
        let store = CacheStore::open(&state_dir(config).join(DIRECTORY), config.cache_quota.bytes())?;
        Ok(Self { store, directory: directory.to_owned() })
    }

    /// For a job of this name: [`crate::JobRun::artifacts`].
    #[must_use]
    pub fn of_job(&self, name: &str) -> ArtifactPlace {
        ArtifactPlace::Local { artifacts: self.clone(), job: name.to_owned() }
    }

    /// How many bytes the archive has that the last run of a job left; `None` if it left none. Blocks.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn archive_size(&self, job: &str) -> io::Result<Option<u64>> {
        let file = self.find(job, ARCHIVE)?;
        file.map(|file| Ok(file.metadata()?.len())).transpose()
    }

    /// The report of a kind that the last run of a job left. Blocks.
    ///
    /// # Errors
    /// If it cannot be read, has more than `most` bytes or is no text.
    pub fn report(&self, job: &str, kind: &str, most: u64) -> io::Result<Option<String>> {
        let Some(file) = self.find(job, kind)? else { return Ok(None) };
        let mut text = String::new();
        file.take(most.saturating_add(1)).read_to_string(&mut text)?;
        if text.len() as u64 > most {
            return Err(io::Error::other(format!("it has more than {most} bytes")));
        }
        Ok(Some(text))
    }

    /// Removes all that the last run of a job left. Blocks.
    ///
    /// # Errors
    /// If something stays.
    pub fn forget(&self, job: &str) -> io::Result<()> {
        self.store.clear(&self.scope(job))
    }

    fn scope(&self, job: &str) -> CacheScope {
        CacheScope::job(&self.directory, job)
    }

    fn find(&self, job: &str, kind: &str) -> io::Result<Option<File>> {
        self.store.find(&self.scope(job), kind)
    }

    async fn put(&self, job: &str, kind: &str, content: impl AsyncRead + Send + Unpin) -> io::Result<()> {
        let (store, scope, kind) = (self.store.clone(), self.scope(job), kind.to_owned());
        let most = store.quota();
        let archive = blocking(move || store.create(&scope, &kind)).await?;
        let mut writer = tokio::fs::File::from_std(archive.writer()?);
        let bytes = tokio::io::copy(&mut content.take(most.saturating_add(1)), &mut writer).await?;
        if bytes > most {
            return Err(io::Error::other(format!("they have more than {most} bytes")));
        }
        writer.flush().await?;
        blocking(move || archive.keep()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(state: &Path) -> LocalArtifacts {
        let config = MicroVm { state_dir: Some(state.to_owned()), ..MicroVm::default() };
        LocalArtifacts::open(&config, Path::new("/repository")).unwrap()
    }

    #[tokio::test]
    async fn a_jobs_artifacts_are_those_of_its_last_run() {
        let state = tempfile::tempdir().unwrap();
        let artifacts = open(state.path());
        artifacts.put("build", ARCHIVE, &b"first"[..]).await.unwrap();
        artifacts.put("build", ARCHIVE, &b"the second"[..]).await.unwrap();
        artifacts.put("build", "dotenv", &b"A=1\n"[..]).await.unwrap();
        let again = open(state.path());
        assert_eq!(again.archive_size("build").unwrap(), Some(10));
        assert_eq!(again.report("build", "dotenv", 4).unwrap().as_deref(), Some("A=1\n"));
        assert_eq!(again.report("build", "dotenv", 3).unwrap_err().to_string(), "it has more than 3 bytes");
        assert_eq!(again.archive_size("test").unwrap(), None);
        artifacts.put("test", ARCHIVE, &b"of another"[..]).await.unwrap();
        artifacts.forget("build").unwrap();
        assert_eq!(again.archive_size("build").unwrap(), None);
        assert_eq!(again.report("build", "dotenv", 4).unwrap(), None);
        assert_eq!(again.archive_size("test").unwrap(), Some(10));
    }

    #[tokio::test]
    async fn nothing_is_left_of_an_archive_that_breaks_off() {
        let state = tempfile::tempdir().unwrap();
        let artifacts = open(state.path());
        let broken = futures::stream::iter([Ok(Bytes::from("half")), Err(io::Error::other("broken"))]);
        let content = tokio_util::io::StreamReader::new(broken);
        assert!(artifacts.put("build", ARCHIVE, content).await.is_err());
        assert_eq!(artifacts.archive_size("build").unwrap(), None);
    }
}
