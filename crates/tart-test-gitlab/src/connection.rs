//! Connections a test can cut.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The power to end the connection a request came by.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    end: CancellationToken,
    /// A second descriptor of the socket, to set how it closes.
    socket: Option<Arc<OwnedFd>>,
}

impl Connection {
    fn new(stream: &TcpStream) -> Self {
        Self { end: CancellationToken::new(), socket: stream.as_fd().try_clone_to_owned().ok().map(Arc::new) }
    }

    /// Closes the connection in the ordinary way.
    pub(crate) fn cut(&self) {
        self.end.cancel();
    }

    /// Closes the connection with a TCP reset.
    pub(crate) fn reset(&self) {
        if let Some(socket) = &self.socket {
            // Without it the close is an ordinary one, which is still a broken answer.
            let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
        self.end.cancel();
    }
}

/// What all connections of a server share.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) tls: Option<TlsAcceptor>,
    /// Asks for the end of each connection after the answer it is at.
    pub(crate) shutdown: CancellationToken,
}

/// Accepts and serves until shutdown, and waits for the last connection; dropping it cuts them all.
pub(crate) async fn accept(listener: TcpListener, service: Service) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = service.shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, service.clone()));
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    // Usually descriptors have run out; the end of a connection gives some back.
                    connections.join_next().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(stream: TcpStream, service: Service) {
    let connection = Connection::new(&stream);
    let router = service.router.layer(Extension(connection.clone()));
    let serving = async {
        match service.tls {
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => speak_http(stream, router, &service.shutdown).await,
                Err(error) => tracing::debug!("TLS handshake: {error}"),
            },
            None => speak_http(stream, router, &service.shutdown).await,
        }
    };
    tokio::select! {
        () = serving => {}
        () = connection.end.cancelled() => {}
    }
}

async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    shutdown: &CancellationToken,
) {
    let server = auto::Builder::new(TokioExecutor::new());
    let mut serving =
        std::pin::pin!(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let served = tokio::select! {
        served = &mut serving => served,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("connection: {error}");
    }
}
