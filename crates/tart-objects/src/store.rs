//! Downloads and uploads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Response, StatusCode};
use rusty_s3::{Bucket, Credentials, S3Action};
use tokio::time::{sleep, timeout};
use url::Url;

use crate::error::{ObjectError, SettingsError, code, describe};
use crate::place::{Encryption, S3Settings};

/// Tries of a request and the pause between them, as in the official runner.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The longest that a signature may hold (S3's API).
const LONGEST_SIGNATURE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The most bytes of one `PUT` (S3's API).
const MAX_OBJECT: u64 = 5 << 30;

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
    bucket: Bucket,
    /// Its `Debug` shows no secret.
    credentials: Credentials,
    encryption: Option<Encryption>,
}

/// The bytes of an object.
#[derive(Debug)]
pub struct Download {
    response: Response,
    limit: Duration,
}

impl Download {
    /// The next bytes; `None` at the object's end.
    ///
    /// # Errors
    /// If the store breaks off: an end before the announced one is an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ObjectError> {
        within(self.limit, self.response.chunk()).await
    }
}

impl ObjectStore {
    /// A bucket of a store that speaks S3. Trusts the system's certificates, and follows no redirection: a signature
    /// holds for one server.
    ///
    /// # Errors
    /// If the settings name no bucket or server.
    pub fn s3(settings: &S3Settings) -> Result<Self, SettingsError> {
        let client = Client::builder().connect_timeout(CONNECT_LIMIT).redirect(Policy::none()).build();
        Ok(Self(Arc::new(Store {
            client: client.map_err(|error| SettingsError::Client(describe(error)))?,
            bucket: settings.bucket()?,
            credentials: settings.credentials(),
            encryption: settings.encryption.clone(),
        })))
    }

    /// Where an object is, without a signature.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        let base = self.0.bucket.base_url();
        self.0.bucket.object_url(name).as_ref().unwrap_or(base).to_string()
    }

    /// Begins to read an object. The time limit holds for the answer's beginning and for each piece of it: how fast a
    /// guest takes them is not the store's fault.
    ///
    /// # Errors
    /// If there is none of that name, or the store refuses three times or for good.
    pub async fn get(&self, name: &str, limit: Duration) -> Result<Download, ObjectError> {
        let Store { bucket, credentials, client, .. } = &*self.0;
        tries(|| async {
            let url = bucket.get_object(Some(credentials), name).sign(validity(limit));
            let response = within(limit, client.get(url).send()).await?;
            Ok(Download { response: accepted(response).await?, limit })
        })
        .await
    }

    /// Writes an object from a file's beginning to its end. `key` is the cache's key, for people who look at the store.
    ///
    /// # Errors
    /// If the store refuses three times or for good, or the file cannot be read.
    pub async fn put(&self, name: &str, key: &str, file: &File, limit: Duration) -> Result<(), ObjectError> {
        let bytes = file.metadata()?.len();
        if bytes > MAX_OBJECT {
            return Err(ObjectError::TooLarge(bytes));
        }
        let Store { client, encryption, .. } = &*self.0;
        let mut headers = encryption.as_ref().map(Encryption::headers).unwrap_or_default();
        if is_header(key) {
            headers.insert(0, ("x-amz-meta-cachekey", key.to_owned()));
        }
        tries(|| async {
            let mut request = client
                .put(self.signed_put(name, &headers, limit))
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, bytes);
            for (header, value) in &headers {
                request = request.header(*header, value);
            }
            let response = within(limit, request.body(body(file, bytes)?).send()).await?;
            accepted(response).await.map(drop)
        })
        .await
    }

    fn signed_put(&self, name: &str, headers: &[(&'static str, String)], limit: Duration) -> Url {
        let mut put = self.0.bucket.put_object(Some(&self.0.credentials), name);
        for (header, value) in headers {
            put.headers_mut().insert(*header, value.as_str());
        }
        put.sign(validity(limit))
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
        (StatusCode::NOT_FOUND, None | Some("NoSuchKey")) => Err(ObjectError::Missing),
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
