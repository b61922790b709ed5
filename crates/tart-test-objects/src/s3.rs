//! A store that speaks S3: `s3s-fs` in a directory.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;

use crate::gate::{Gate, Seen, Store, refuse};

/// The only access key that it knows.
pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";

/// The secret key of [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "test-secret-key-of-the-store";

/// A running store. It ends when it is dropped.
#[derive(Debug)]
pub struct S3Server {
    root: TempDir,
    gate: Gate,
}

impl S3Server {
    /// Starts a store with empty buckets of these names.
    ///
    /// # Errors
    /// If there is no place or no port for it.
    pub async fn start(buckets: &[&str]) -> anyhow::Result<Self> {
        let root = tempfile::tempdir()?;
        for bucket in buckets {
            std::fs::create_dir(root.path().join(bucket))?;
        }
        let files = FileSystem::new(root.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let store = builder.build();
        let gate = Gate::start(Arc::new(store), None).await?;
        Ok(Self { root, gate })
    }

    /// `host:port`; HTTP is spoken there.
    #[must_use]
    pub fn address(&self) -> String {
        self.gate.address()
    }

    /// The next requests of a method get a status instead of an answer.
    pub fn fail(&self, method: &str, status: u16, times: usize) {
        self.gate.fail(method, status, times);
    }

    /// All requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.gate.seen()
    }

    /// Names of all objects of a bucket, sorted.
    ///
    /// # Errors
    /// If there is no such bucket.
    pub fn objects(&self, bucket: &str) -> anyhow::Result<Vec<String>> {
        let root = self.root.path().join(bucket);
        let mut names = Vec::new();
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                } else {
                    names.push(entry.path().strip_prefix(&root)?.to_string_lossy().into_owned());
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// The file of an object.
    #[must_use]
    pub fn file(&self, bucket: &str, name: &str) -> PathBuf {
        self.root.path().join(bucket).join(name)
    }
}

impl Store for S3Service {
    fn answer(self: Arc<Self>, request: Request<Incoming>, _tls: bool) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            hyper::service::Service::call(&*self, request)
                .await
                .unwrap_or_else(|_| refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
        })
    }
}
