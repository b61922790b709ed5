//! The listener, and what it answers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::frames::Codec;
use crate::request::{Handshake, Target, is_upgrade};
use crate::session::{Session, Sessions, Shared};
use crate::{SessionError, certificate, socket};

/// Most connections at a time. GitLab makes one for each terminal.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take for the handshake of TLS, and for its request.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long a client waits for a terminal that is not there yet.
const TERMINAL_LIMIT: Duration = Duration::from_secs(60);

/// Longest request, in bytes.
const MAX_REQUEST: usize = 16 << 10;

/// `[session_server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// `host:port`. Port 0 is any.
    pub listen_address: String,
    /// What GitLab is told instead.
    pub advertise_address: Option<String>,
}

/// Listens until it is dropped. Connections end with it.
pub struct SessionServer {
    base: String,
    certificate: String,
    address: SocketAddr,
    sessions: Arc<Sessions>,
    _listener: JoinSet<()>,
}

impl fmt::Debug for SessionServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl SessionServer {
    /// Makes a certificate and listens.
    ///
    /// # Errors
    /// If an address is none, or nobody can listen on it.
    pub async fn start(options: &ServerOptions) -> Result<Self, SessionError> {
        let listen = host_and_port("listen_address", &options.listen_address)?;
        let advertised = match &options.advertise_address {
            Some(address) => Some(host_and_port("advertise_address", address)?),
            None => None,
        };
        let host = advertised.map_or(listen.0, |(host, _)| host);
        if host.is_empty() {
            return Err(SessionError::Address {
                key: "listen_address",
                value: options.listen_address.clone(),
                problem: "it names no host, so GitLab could not be told one: set `advertise_address`",
            });
        }
        let (certificate, acceptor) = certificate::make(host.trim_start_matches('[').trim_end_matches(']'))?;
        let wanted =
            if listen.0.is_empty() { format!("[::]:{}", listen.1) } else { options.listen_address.clone() };
        let failed = |source| SessionError::Listen { address: options.listen_address.clone(), source };
        let listener = TcpListener::bind(&wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let base = match &options.advertise_address {
            Some(advertised) => format!("https://{advertised}"),
            None => format!("https://{host}:{}", address.port()),
        };
        let sessions = Arc::new(Sessions::new(HashMap::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen_on(listener, acceptor, Arc::clone(&sessions)));
        Ok(Self { base, certificate, address, sessions, _listener: tasks })
    }

    /// A new session, for the job that the next request may bring.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn session(&self) -> Result<Session, SessionError> {
        Session::new(&self.base, &self.certificate, Arc::clone(&self.sessions))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The host, which may be empty, and the port.
fn host_and_port<'a>(key: &'static str, address: &'a str) -> Result<(&'a str, u16), SessionError> {
    let problem = |problem| SessionError::Address { key, value: address.to_owned(), problem };
    if address.contains("://") {
        return Err(problem("it is `host:port`, without a scheme"));
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(|| problem("it has no port"))?;
    let port = port.parse().map_err(|_| problem("its port is no number below 65536"))?;
    let is_host = host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
    if is_host { Ok((host, port)) } else { Err(problem("its host is no name or address")) }
}

async fn listen_on(listener: TcpListener, acceptor: TlsAcceptor, sessions: Arc<Sessions>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Beyond the limit, clients wait where the kernel keeps them.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (acceptor, sessions) = (acceptor.clone(), Arc::clone(&sessions));
                connections.spawn(async move {
                    serve(stream, peer, acceptor, sessions).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the session server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, sessions: Arc<Sessions>) {
    // Typing is many small packets.
    let _slower = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS with a client of the session server"),
        Err(_) => return tracing::debug!(%peer, "a client of the session server is too slow"),
    };
    // What goes on after the upgrade belongs to this connection.
    let mut upgraded = JoinSet::new();
    let terminals = std::sync::Mutex::new(&mut upgraded);
    let service = service_fn(|request| {
        let sessions = Arc::clone(&sessions);
        let terminals = &terminals;
        async move {
            let (response, terminal) = answer(request, &sessions).await;
            if let Some(terminal) = terminal {
                terminals.lock().unwrap_or_else(PoisonError::into_inner).spawn(terminal);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_LIMIT)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%peer, %error, "a connection of the session server failed");
    }
    while upgraded.join_next().await.is_some() {}
}

/// What happens on a connection after its answer.
type Afterwards = futures::future::BoxFuture<'static, ()>;

async fn answer(
    mut request: Request<Incoming>,
    sessions: &Sessions,
) -> (Response<Full<Bytes>>, Option<Afterwards>) {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _body) = request.into_parts();
    let refuse = |status: StatusCode| (refusal(status), None);
    let Some(target) = Target::of(parts.uri.path()) else { return refuse(StatusCode::NOT_FOUND) };
    let session = sessions.lock().unwrap_or_else(PoisonError::into_inner).get(target.session()).cloned();
    let Some(session) = session else { return refuse(StatusCode::NOT_FOUND) };
    let authorization = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if !session.authorizes(authorization.unwrap_or_default()) {
        tracing::warn!("a client of the session server has the wrong token");
        return refuse(StatusCode::UNAUTHORIZED);
    }
    match target {
        // Services are not reached by this way.
        Target::Proxy(_) => refuse(StatusCode::NOT_FOUND),
        Target::Exec(_) if !is_upgrade(&parts.headers) => refuse(StatusCode::METHOD_NOT_ALLOWED),
        Target::Exec(_) => match Handshake::of(&parts) {
            Some(handshake) => exec(&session, handshake, upgrade).await,
            None => refuse(StatusCode::BAD_REQUEST),
        },
    }
}

async fn exec(
    session: &Arc<Shared>,
    handshake: Handshake,
    upgrade: hyper::upgrade::OnUpgrade,
) -> (Response<Full<Bytes>>, Option<Afterwards>) {
    let refuse = |status: StatusCode| (refusal(status), None);
    let Ok(Some(terminal)) = timeout(TERMINAL_LIMIT, session.terminal()).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    let Some(connected) = session.connect() else { return refuse(StatusCode::LOCKED) };
    let output = match terminal.connect().await {
        Ok(output) => output,
        Err(error) => {
            tracing::error!(error, "a terminal could not be opened");
            return refuse(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(key) = HeaderValue::from_str(&derive_accept_key(&handshake.key)) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    if let Some(protocol) = handshake.protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let codec = Codec::of(handshake.protocol);
    let afterwards = async move {
        // If nothing comes of the upgrade, the client is gone, and its shell goes.
        if let Ok(stream) = upgrade.await {
            tracing::info!("a terminal is connected");
            socket::join(TokioIo::new(stream), codec, output, connected).await;
            tracing::info!("a terminal is disconnected");
        }
    };
    (response, Some(Box::pin(afterwards)))
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(format!("{reason}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_and_no_scheme() {
        let of = |address| host_and_port("listen_address", address).map_err(|error| error.to_string());
        assert_eq!(of("0.0.0.0:8093"), Ok(("0.0.0.0", 8093)));
        assert_eq!(of("[::1]:8093"), Ok(("[::1]", 8093)));
        assert_eq!(of(":8093"), Ok(("", 8093)));
        insta::assert_snapshot!(of("https://a:1").unwrap_err(), @r#"`listen_address = "https://a:1"` is no address: it is `host:port`, without a scheme"#);
        insta::assert_snapshot!(of("localhost").unwrap_err(), @r#"`listen_address = "localhost"` is no address: it has no port"#);
        insta::assert_snapshot!(of("a:b").unwrap_err(), @r#"`listen_address = "a:b"` is no address: its port is no number below 65536"#);
        insta::assert_snapshot!(of("a/b:1").unwrap_err(), @r#"`listen_address = "a/b:1"` is no address: its host is no name or address"#);
    }
}
