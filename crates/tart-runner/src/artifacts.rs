//! Where artifacts of a job go, and where those of other jobs come from.

use std::fmt;

use tart_gitlab::{ArtifactDownload, ArtifactUpload, Client, DownloadError, JobHandle, UploadError};
use tart_spec::Dependency;
use tokio::io::AsyncRead;

/// The server of a job, for its artifacts.
#[derive(Clone)]
pub struct Artifacts {
    handle: JobHandle,
    client: Client,
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifacts").finish_non_exhaustive()
    }
}

impl Artifacts {
    /// Those of a job.
    #[must_use]
    pub fn new(handle: JobHandle, client: Client) -> Self {
        Self { handle, client }
    }

    /// Tries once to upload.
    pub(crate) async fn upload(
        &self,
        upload: &ArtifactUpload,
        content: impl AsyncRead + Send + 'static,
    ) -> Result<(), UploadError> {
        self.handle.upload_artifacts(upload, content).await
    }

    /// Tries once to download what another job has, from the object storage itself if `direct`.
    pub(crate) async fn download(
        &self,
        other: &Dependency,
        direct: bool,
    ) -> Result<ArtifactDownload, DownloadError> {
        self.client.download_artifacts(other.id, &other.token.clone().into(), direct).await
    }
}
