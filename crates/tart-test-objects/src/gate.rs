//! The gate before a store.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

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

/// What is behind a gate.
pub(crate) trait Store: Send + Sync + 'static {
    /// Answers a request, which came by TLS or not.
    fn answer(self: Arc<Self>, request: Request<Incoming>, tls: bool) -> BoxFuture<'static, Response<Body>>;
}

/// A listener before a store. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Gate {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    /// How many requests of which method get what status instead of the store's answer.
    failures: Vec<(String, StatusCode, usize)>,
}

impl Gate {
    /// Listens on loopback. With an acceptor, the gate is a proxy to hosts that speak TLS, too: the store is all of
    /// them.
    pub(crate) async fn start(store: Arc<impl Store>, tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::default();
        let door = Door { state: Arc::clone(&state), store, tls };
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(door.clone().serve(stream, false));
            }
        });
        Ok(Self { address, state, task })
    }

    /// `host:port`; HTTP is spoken there.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The next requests of a method get a status instead of an answer.
    pub(crate) fn fail(&self, method: &str, status: u16, times: usize) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        with(&self.state, |state| state.failures.push((method.to_owned(), status, times)));
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        with(&self.state, |state| state.seen.clone())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn with<T>(state: &Mutex<State>, work: impl FnOnce(&mut State) -> T) -> T {
    work(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What each connection has.
struct Door<S> {
    state: Arc<Mutex<State>>,
    store: Arc<S>,
    tls: Option<TlsAcceptor>,
}

impl<S> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), store: Arc::clone(&self.store), tls: self.tls.clone() }
    }
}

impl<S: Store> Door<S> {
    /// Boxed: a connection may have another one in it.
    fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        tls: bool,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let service = hyper::service::service_fn(move |request| self.clone().answer(request, tls));
            let builder = Builder::new(TokioExecutor::new());
            // A client that goes away is none of the store's business.
            drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
        })
    }

    async fn answer(self, request: Request<Incoming>, tls: bool) -> Result<Response<Body>, Infallible> {
        if let (&Method::CONNECT, Some(acceptor)) = (request.method(), self.tls.clone()) {
            tokio::spawn(async move {
                let Ok(tunnel) = hyper::upgrade::on(request).await else { return };
                let Ok(stream) = acceptor.accept(TokioIo::new(tunnel)).await else { return };
                self.serve(stream, true).await;
            });
            return Ok(Response::new(Body::empty()));
        }
        let text =
            |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut seen = Seen {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            status: 0,
        };
        let answer = match self.failure(&seen.method) {
            Some(status) => refuse(status, "SlowDown"),
            None => self.store.answer(request, tls).await,
        };
        seen.status = answer.status().as_u16();
        with(&self.state, |state| state.seen.push(seen));
        Ok(answer)
    }

    /// The status that a request of a method is to get, if it is not the store's to answer.
    fn failure(&self, method: &str) -> Option<StatusCode> {
        with(&self.state, |state| {
            let failure = state.failures.iter_mut().find(|(of, _, left)| of == method && *left > 0)?;
            failure.2 -= 1;
            Some(failure.1)
        })
    }
}

/// An error as all three kinds of stores say it.
pub(crate) fn refuse(status: StatusCode, code: &str) -> Response<Body> {
    let text = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code></Error>");
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer
}
