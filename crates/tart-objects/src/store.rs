//! Downloads and uploads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Response, StatusCode};
use tart_ranges::Ranges;
use tokio::time::{sleep, timeout};

use crate::azure::{Azure, AzureSettings};
use crate::error::{ObjectError, SettingsError, code, describe};
use crate::gcs::{Gcs, GcsSettings};
use crate::place::{Place, Signed};
use crate::s3::{S3, S3Settings};

/// Tries of a request and the pause between them, as in the official runner.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The longest that a signature may hold (S3's and Google's API).
const LONGEST_SIGNATURE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bytes of an error's text that are looked at.
const MAX_ERROR: usize = 4096;

/// Bytes of an archive that are read at once.
const PIECE: usize = 64 * 1024;

/// A bucket and the keys to it.
#[derive(Debug, Clone)]
pub struct ObjectStore(Arc<Store>);

#[derive(Debug)]
struct Store {
    client: Client,
    place: Box<dyn Place>,
}

/// How an object is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// By one request.
    Whole,
    /// By several requests at once, if the store can do that. At most 16 MiB of the object are in memory.
    InPieces,
}

/// The bytes of an object.
#[derive(Debug)]
pub struct Download {
    content: Content,
    limit: Duration,
}

#[derive(Debug)]
enum Content {
    Whole(Response),
    Pieces(Ranges),
}

impl Download {
    /// The next bytes; `None` at the object's end.
    ///
    /// # Errors
    /// If the store breaks off: an end before the announced one is an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ObjectError> {
        match &mut self.content {
            Content::Whole(response) => within(self.limit, response.chunk()).await,
            Content::Pieces(ranges) => Ok(ranges.chunk().await?),
        }
    }
}

impl ObjectStore {
    /// A bucket of a store that speaks S3.
    ///
    /// # Errors
    /// If the settings name no bucket or server.
    pub fn s3(settings: &S3Settings) -> Result<Self, SettingsError> {
        Self::new(S3::new(settings)?)
    }

    /// A bucket of Google Cloud Storage. Reads the credentials file, if there is one.
    ///
    /// # Errors
    /// If the settings name no bucket, or no account whose key can sign.
    pub fn gcs(settings: &GcsSettings) -> Result<Self, SettingsError> {
        Self::new(Gcs::new(settings)?)
    }

    /// A container of Azure Blob Storage.
    ///
    /// # Errors
    /// If the settings name no container or account, or the key is none.
    pub fn azure(settings: &AzureSettings) -> Result<Self, SettingsError> {
        Self::new(Azure::new(settings)?)
    }

    /// Trusts the system's certificates, and follows no redirection: a signature holds for one server.
    fn new(place: impl Place + 'static) -> Result<Self, SettingsError> {
        let client = Client::builder().connect_timeout(CONNECT_LIMIT).redirect(Policy::none()).build();
        let client = client.map_err(|error| SettingsError::Client(describe(error)))?;
        Ok(Self(Arc::new(Store { client, place: Box::new(place) })))
    }

    /// Where an object is, without a signature.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        self.0.place.address(name).into()
    }

    /// Begins to read an object. The time limit holds for the answer's beginning and for each piece of it: how fast a
    /// guest takes them is not the store's fault.
    ///
    /// # Errors
    /// If there is none of that name, or the store refuses three times or for good. An object that is replaced while its
    /// pieces are read is an error of the download.
    pub async fn get(
        &self,
        name: &str,
        transfer: Transfer,
        limit: Duration,
    ) -> Result<Download, ObjectError> {
        tries(|| async {
            if transfer == Transfer::InPieces
                && let Some(content) = self.pieces(name, limit).await?
            {
                return Ok(Download { content, limit });
            }
            let url = self.0.place.get(name, validity(limit))?;
            let response = within(limit, self.0.client.get(url).send()).await?;
            Ok(Download { content: Content::Whole(accepted(response).await?), limit })
        })
        .await
    }

    /// Begins to read an object in pieces, if there can be any.
    async fn pieces(&self, name: &str, limit: Duration) -> Result<Option<Content>, ObjectError> {
        let Store { client, place } = &*self.0;
        let url = place.get(name, validity(limit))?;
        let response = within(limit, client.get(url).header(RANGE, Ranges::first()).send()).await?;
        match response.status() {
            // An empty object has no pieces.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
            StatusCode::PARTIAL_CONTENT => {
                let (store, name) = (self.clone(), name.to_owned());
                // What is not signed is refused.
                let url = move || {
                    let place = &store.0.place;
                    place.get(&name, validity(limit)).unwrap_or_else(|_| place.address(&name))
                };
                let ranges = Ranges::new(client, url, response, limit)?;
                Ok(Some(ranges).filter(Ranges::are_of_one_file).map(Content::Pieces))
            }
            _ => Ok(Some(Content::Whole(accepted(response).await?))),
        }
    }

    /// Writes an object from a file's beginning to its end. `key` is the cache's key, for people who look at the store.
    ///
    /// # Errors
    /// If the store refuses three times or for good, or the file cannot be read.
    pub async fn put(&self, name: &str, key: &str, file: &File, limit: Duration) -> Result<(), ObjectError> {
        let bytes = file.metadata()?.len();
        let Store { client, place } = &*self.0;
        if bytes > place.largest() {
            return Err(ObjectError::TooLarge(bytes));
        }
        let key = Some(key).filter(|key| is_header(key));
        tries(|| async {
            let Signed { url, headers } = place.put(name, key, validity(limit))?;
            let mut request = client
                .put(url)
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, bytes);
            for (header, value) in headers {
                request = request.header(header, value);
            }
            let response = within(limit, request.body(body(file, bytes)?).send()).await?;
            accepted(response).await.map(drop)
        })
        .await
    }
}

/// The file from its beginning, without its position: a try that was given up may still read.
fn body(file: &File, bytes: u64) -> io::Result<Body> {
    let file = Arc::new(file.try_clone()?);
    let pieces = futures::stream::try_unfold(0_u64, move |position| {
        let file = Arc::clone(&file);
        async move {
            let wanted = usize::try_from(bytes - position).unwrap_or(PIECE).min(PIECE);
            if wanted == 0 {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; wanted];
                file.read_exact_at(&mut piece, position).map(|()| Bytes::from(piece))
            });
            let piece = read.await.map_err(io::Error::other)??;
            Ok::<_, io::Error>(Some((piece, position + wanted as u64)))
        }
    });
    Ok(Body::wrap_stream(pieces))
}

async fn tries<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, ObjectError>
where
    F: Future<Output = Result<T, ObjectError>>,
{
    let mut failed = 0;
    loop {
        match attempt().await {
            Err(error) if error.is_worth_retrying() && failed + 1 < TRIES => failed += 1,
            result => return result,
        }
        sleep(PAUSE).await;
    }
}

async fn within<T>(
    limit: Duration,
    request: impl Future<Output = reqwest::Result<T>>,
) -> Result<T, ObjectError> {
    match timeout(limit, request).await {
        Ok(answer) => answer.map_err(|error| ObjectError::Transport(describe(error))),
        Err(_) => Err(ObjectError::TimedOut(limit.as_secs())),
    }
}

/// The answer if it is a good one.
async fn accepted(mut response: Response) -> Result<Response, ObjectError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut body = Vec::new();
    while let Ok(Ok(Some(piece))) = timeout(PAUSE, response.chunk()).await {
        body.extend_from_slice(&piece);
        if body.len() >= MAX_ERROR {
            break;
        }
    }
    let code = code(&String::from_utf8_lossy(&body));
    // A bucket that is missing is a mistake, an object that is missing is none.
    match (status, code.as_deref()) {
        (StatusCode::NOT_FOUND, None | Some("NoSuchKey" | "BlobNotFound")) => Err(ObjectError::Missing),
        _ => Err(ObjectError::Refused { status, code }),
    }
}

fn validity(limit: Duration) -> Duration {
    limit.clamp(Duration::from_secs(60), LONGEST_SIGNATURE)
}

/// Whether a text arrives as it is when it is the value of a signed header.
fn is_header(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic())
}
