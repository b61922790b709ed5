//! Artifacts: one try of an upload, one try of a download, and what their answers mean (protocol reference 5.1, 5.6).
//!
//! Both are streams of unknown length that are never held in memory. An upload's content cannot be sent a second time
//! from here, so that whoever makes it also repeats it, as often as [`UploadError::tries`] says.

use bytes::Bytes;
use reqwest::header::{HeaderValue, LOCATION, RANGE};
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method, Response};
use tart_ranges::{RangeError, Ranges};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use url::Url;

use crate::address::origin;
use crate::call::{HEADER_TIMEOUT, JOB_TOKEN, MAX_REDIRECTS, X_REQUEST_ID, read_some, redirection};
use crate::client::Client;
use crate::error::{ApiError, transport};
use crate::job_api::JobHandle;
use crate::token::Token;

/// How much of the content is read at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// What an upload is, besides its content. Texts that are empty are not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactUpload {
    /// A plain name with the suffix of the format.
    pub file_name: String,
    /// `zip`, `gzip`, `raw`.
    pub format: String,
    /// `archive`, or the kind of a report.
    pub kind: String,
    /// As the job has it, such as `1 week`.
    pub expire_in: String,
}

/// Why artifacts were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// 403: the job is over, or its token is.
    #[error("the server does not allow the upload: {0}")]
    Forbidden(ApiError),
    /// 413.
    #[error("the artifacts are too large for the server; raise its limit or choose fewer files: {0}")]
    TooLarge(ApiError),
    /// 503.
    #[error("{0}")]
    Unavailable(ApiError),
    /// Everything else.
    #[error("{0}")]
    Failed(ApiError),
}

impl UploadError {
    /// How many tries there are in all.
    pub fn tries(&self) -> u32 {
        match self {
            Self::Forbidden(_) | Self::TooLarge(_) => 1,
            Self::Unavailable(_) => 6,
            Self::Failed(_) => 3,
        }
    }
}

/// Why artifacts were not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// 401 or 403.
    #[error("the server does not allow the download: {0}")]
    Forbidden(ApiError),
    /// 404.
    #[error("the server has no such artifacts: {0}")]
    NotFound(ApiError),
    /// Everything else, worth another try.
    #[error("{0}")]
    Failed(ApiError),
}

/// Artifacts that are being downloaded.
#[derive(Debug)]
pub struct ArtifactDownload {
    content: Content,
    /// Scheme, host and port of where they come from, if that is not the server.
    pub storage: Option<String>,
}

#[derive(Debug)]
enum Content {
    Whole(Response),
    Pieces(Ranges),
}

/// Where a download comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadFrom {
    /// The server itself.
    Server,
    /// The object storage, if the server says where that is. It does not get the token.
    Storage,
    /// The same, in several pieces at once, if the storage knows pieces. At most 16 MiB of them are in memory.
    StorageInPieces,
}

impl ArtifactDownload {
    /// The next piece; `None` at the end. Errors: the connection broke.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        match &mut self.content {
            Content::Whole(response) => response.chunk().await.map_err(transport),
            Content::Pieces(ranges) => ranges.chunk().await.map_err(piece_failed),
        }
    }
}

impl JobHandle {
    /// Tries once to upload artifacts. If `content` fails, the server gets an incomplete request, which it refuses.
    pub async fn upload_artifacts(
        &self,
        upload: &ArtifactUpload,
        content: impl AsyncRead + Send + 'static,
    ) -> Result<(), UploadError> {
        let (client, id, token) = self.parts();
        let failed = UploadError::Failed;
        let mut url = artifacts_url(client, id).map_err(failed)?;
        for (key, value) in [
            ("artifact_format", &upload.format),
            ("artifact_type", &upload.kind),
            ("expire_in", &upload.expire_in),
        ] {
            if !value.is_empty() {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        let body = Body::wrap_stream(ReaderStream::with_capacity(content, PIECE_BYTES));
        let form = Form::new().part("file", Part::stream(body).file_name(upload.file_name.clone()));
        let connections = client.transport().connections().map_err(failed)?;
        let request = connections
            .http
            .request(Method::POST, url)
            .header(X_REQUEST_ID, uuid::Uuid::new_v4().simple().to_string())
            .header(JOB_TOKEN, secret(token).map_err(failed)?)
            .multipart(form);
        let mut response = request.send().await.map_err(|error| failed(transport(error)))?;
        let status = response.status().as_u16();
        let error = ApiError::from_answer(status, &read_some(&mut response).await);
        match status {
            201 => Ok(()),
            403 => Err(UploadError::Forbidden(error)),
            413 => Err(UploadError::TooLarge(error)),
            503 => Err(UploadError::Unavailable(error)),
            _ => Err(failed(error)),
        }
    }
}

impl Client {
    /// Tries once to download the artifacts of a job, with the token that this job has for them.
    pub async fn download_artifacts(
        &self,
        id: i64,
        token: &Token,
        from: DownloadFrom,
    ) -> Result<ArtifactDownload, DownloadError> {
        let failed = DownloadError::Failed;
        let mut url = artifacts_url(self, id).map_err(failed)?;
        let server = url.origin();
        let mut in_pieces = from == DownloadFrom::StorageInPieces;
        if from != DownloadFrom::Server {
            url.query_pairs_mut().append_pair("direct_download", "true");
        }
        let secret = secret(token).map_err(failed)?;
        let connections = self.transport().connections().map_err(failed)?;
        let request_id = uuid::Uuid::new_v4().simple().to_string();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = connections.http.get(url.clone());
            if url.origin() == server {
                request = request.header(JOB_TOKEN, secret.clone()).header(X_REQUEST_ID, &request_id);
            } else if in_pieces {
                request = request.header(RANGE, Ranges::first());
            }
            let mut response = tokio::time::timeout(HEADER_TIMEOUT, request.send())
                .await
                .map_err(|_| failed(ApiError::Transport(format!("no answer within {HEADER_TIMEOUT:?}"))))?
                .map_err(|error| failed(transport(error)))?;
            if redirection(&response).is_some() {
                url = next(&url, &response).map_err(failed)?;
                continue;
            }
            let status = response.status().as_u16();
            let storage = (url.origin() != server).then(|| origin(&url));
            if status == 200 {
                return Ok(ArtifactDownload { content: Content::Whole(response), storage });
            }
            if status == 206 && in_pieces && storage.is_some() {
                let here = url.clone();
                let ranges = Ranges::new(&connections.http, move || here.clone(), response, HEADER_TIMEOUT)
                    .map_err(|error| failed(piece_failed(error)))?;
                return Ok(ArtifactDownload { content: Content::Pieces(ranges), storage });
            }
            if status == 416 && std::mem::take(&mut in_pieces) {
                // An empty file has no pieces.
                continue;
            }
            let error = ApiError::from_answer(status, &read_some(&mut response).await);
            return Err(match status {
                401 | 403 => DownloadError::Forbidden(error),
                404 => DownloadError::NotFound(error),
                _ => failed(error),
            });
        }
        let reason = "there were too many redirections before";
        Err(failed(ApiError::Redirect { location: origin(&url), reason }))
    }
}

fn piece_failed(error: RangeError) -> ApiError {
    match error {
        RangeError::Transport(error) => transport(error),
        error => ApiError::Transport(error.to_string()),
    }
}

fn artifacts_url(client: &Client, id: i64) -> Result<Url, ApiError> {
    let url = client.api_root().join(&format!("jobs/{id}/artifacts"));
    url.map_err(|error| ApiError::Client(format!("no URL for the artifacts: {error}")))
}

fn secret(token: &Token) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::from_str(token.expose())
        .map_err(|_| ApiError::Client("the token has characters that no token has".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a download goes on: anywhere, but never from TLS to a plain connection.
fn next(from: &Url, response: &Response) -> Result<Url, ApiError> {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let to = location.and_then(|location| from.join(location).ok());
    let Some(to) = to.filter(|to| matches!(to.scheme(), "http" | "https")) else {
        return Err(ApiError::Redirect { location: "nowhere".into(), reason: "the address is not usable" });
    };
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(ApiError::Redirect { location: origin(&to), reason: "it would give up TLS" });
    }
    Ok(to)
}
