//! A store that speaks S3, on loopback, for tests.
//!
//! The store is `s3s-fs`, made by others: it checks signatures and their age, and refuses what S3 refuses. Before it is a
//! gate that can answer as a store in trouble does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The only access key that it knows.
pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";

/// The secret key of [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "test-secret-key-of-the-store";

/// A running store. It ends when it is dropped.
#[derive(Debug)]
pub struct S3Server {
    root: TempDir,
    address: SocketAddr,
    gate: Arc<Gate>,
    task: JoinHandle<()>,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// Names and values of headers, in lower case and as they are.
    pub headers: Vec<(String, String)>,
    /// The status that it was answered with.
    pub status: u16,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    /// How many requests of which method get what status instead of the store's answer.
    failures: Vec<(String, StatusCode, usize)>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let gate = Arc::new(Gate::default());
        let task = tokio::spawn(serve(listener, Arc::clone(&gate), store));
        Ok(Self { root, address, gate, task })
    }

    /// `host:port`; HTTP is spoken there.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The next requests of a method get a status instead of an answer.
    pub fn fail(&self, method: &str, status: u16, times: usize) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.gate.state(|state| state.failures.push((method.to_owned(), status, times)));
    }

    /// All requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.gate.state(|state| state.seen.clone())
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

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The status that a request of a method is to get, if it is not the store's to answer.
    fn failure(&self, method: &str) -> Option<StatusCode> {
        self.state(|state| {
            let failure = state.failures.iter_mut().find(|(of, _, left)| of == method && *left > 0)?;
            failure.2 -= 1;
            Some(failure.1)
        })
    }
}

async fn serve(listener: TcpListener, gate: Arc<Gate>, store: S3Service) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (gate, store) = (Arc::clone(&gate), store.clone());
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(&gate, &store, request));
            // A client that goes away is none of the store's business.
            drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn answer(
    gate: &Arc<Gate>,
    store: &S3Service,
    request: Request<Incoming>,
) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    let (gate, store) = (Arc::clone(gate), store.clone());
    Box::pin(async move {
        let text =
            |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut seen = Seen {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            status: 0,
        };
        let answer = match gate.failure(&seen.method) {
            Some(status) => refuse(status),
            None => hyper::service::Service::call(&store, request)
                .await
                .unwrap_or_else(|_| refuse(StatusCode::INTERNAL_SERVER_ERROR)),
        };
        seen.status = answer.status().as_u16();
        gate.state(|state| state.seen.push(seen));
        Ok(answer)
    })
}

fn refuse(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::from("<Error><Code>SlowDown</Code></Error>".to_owned()));
    *answer.status_mut() = status;
    answer
}
