//! The server and a real client of websockets, over TLS that trusts the offered certificate alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tart_session::{
    BASE64, Offer, PLAIN, ServerOptions, Session, SessionServer, Terminal, TerminalInput, TerminalOutput,
};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message, http::Request};

const LIMIT: Duration = Duration::from_secs(20);

/// A shell that says what it hears.
struct Echo {
    heard: mpsc::UnboundedSender<String>,
    fails: bool,
}

struct Shell {
    output: mpsc::UnboundedReceiver<Bytes>,
    input: Arc<Typing>,
}

struct Typing {
    output: Mutex<Option<mpsc::UnboundedSender<Bytes>>>,
    heard: mpsc::UnboundedSender<String>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _test_is_over = self.input.heard.send("gone".to_owned());
    }
}

#[async_trait]
impl Terminal for Echo {
    async fn connect(&self) -> Result<Box<dyn TerminalOutput>, String> {
        if self.fails {
            return Err("there is no shell".to_owned());
        }
        let (sender, output) = mpsc::unbounded_channel();
        sender.send(Bytes::from_static(b"$ ")).unwrap();
        let input = Typing { output: Mutex::new(Some(sender)), heard: self.heard.clone() };
        Ok(Box::new(Shell { output, input: Arc::new(input) }))
    }
}

#[async_trait]
impl TerminalOutput for Shell {
    async fn next(&mut self) -> Option<Bytes> {
        self.output.recv().await
    }

    fn input(&self) -> Arc<dyn TerminalInput> {
        self.input.clone()
    }
}

#[async_trait]
impl TerminalInput for Typing {
    async fn write(&self, bytes: Bytes) {
        let mut output = self.output.lock().await;
        // The end of transmission ends a shell.
        match bytes.as_ref() {
            [4] => *output = None,
            _ => drop(output.as_ref().map(|output| output.send(bytes))),
        }
    }

    async fn resize(&self, rows: u16, cols: u16) {
        let _test_is_over = self.heard.send(format!("{rows}x{cols}"));
    }
}

async fn server() -> SessionServer {
    let options = ServerOptions { listen_address: "127.0.0.1:0".to_owned(), advertise_address: None };
    SessionServer::start(&options).await.unwrap()
}

/// Gives a session a terminal, and hears of it.
fn with_terminal(session: &Session) -> mpsc::UnboundedReceiver<String> {
    let (heard, receiver) = mpsc::unbounded_channel();
    session.set_terminal(Arc::new(Echo { heard, fails: false }));
    receiver
}

async fn connect(offer: &Offer) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(offer.certificate.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = offer.url.strip_prefix("https://").unwrap().split('/').next().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(address.split(':').next().unwrap().to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// The request that GitLab makes: the offered address with `/exec`, and the offered authorization.
fn request(offer: &Offer, protocol: &str) -> Request<()> {
    let url = format!("{}/exec", offer.url.replacen("https", "wss", 1));
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Authorization", offer.authorization.parse().unwrap());
    headers.insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    request
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// The websocket, or the status of the refusal.
async fn websocket(offer: &Offer, request: Request<()>) -> Result<Socket, u16> {
    let stream = connect(offer).await;
    match tokio::time::timeout(LIMIT, tokio_tungstenite::client_async(request, stream)).await.unwrap() {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(LIMIT, socket.next()).await.unwrap().expect("there is more").expect("it is well")
}

async fn hear(heard: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(LIMIT, heard.recv()).await.unwrap().expect("there is more")
}

#[tokio::test]
async fn a_terminal_speaks_both_protocols() {
    let server = server().await;
    let session = server.session().unwrap();
    session.open();
    let mut heard = with_terminal(&session);

    let mut socket = websocket(session.offer(), request(session.offer(), PLAIN)).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary("$ "));
    assert!(session.is_connected());
    socket.send(Message::binary("ls\n")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary("ls\n"));
    socket.send(Message::text(r#"{"resize":{"rows":50,"cols":132}}"#)).await.unwrap();
    assert_eq!(hear(&mut heard).await, "50x132");
    socket.close(None).await.unwrap();
    assert_eq!(hear(&mut heard).await, "gone");
    tokio::time::timeout(LIMIT, session.disconnected()).await.unwrap();

    let mut socket = websocket(session.offer(), request(session.offer(), BASE64)).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("JCA="));
    socket.send(Message::text("bHMK")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("bHMK"));
    // What GitLab sends when the browser is gone.
    socket.send(Message::text("BA==")).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("it goes on") };
    assert_eq!(frame.reason.as_str(), "the shell has ended");
}

#[tokio::test]
async fn whoever_is_not_meant_is_refused() {
    let server = server().await;
    let session = server.session().unwrap();
    let offer = session.offer().clone();
    let of = async |request: Request<()>| websocket(&offer, request).await.err();
    let good = || request(&offer, PLAIN);
    // Before there is a job, the session cannot be found.
    assert_eq!(of(good()).await, Some(404));
    session.open();
    let heard = with_terminal(&session);
    let with = |name: &'static str, value: &str| {
        let mut request = good();
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    assert_eq!(of(with("Authorization", "")).await, Some(401));
    assert_eq!(of(with("Authorization", &format!("Bearer {}", offer.authorization))).await, Some(401));
    assert_eq!(of(with("Authorization", &offer.authorization[1..])).await, Some(401));
    assert_eq!(of(with("Sec-WebSocket-Version", "12")).await, Some(400));
    let at = |path: &str| {
        let mut request = good();
        *request.uri_mut() = format!("wss://127.0.0.1{path}").parse().unwrap();
        request
    };
    assert_eq!(of(at("/session/0/exec")).await, Some(404));
    assert_eq!(of(at("/")).await, Some(404));
    let own = offer.url.rsplit('/').next().unwrap();
    assert_eq!(of(at(&format!("/session/{own}/proxy/db/5432/"))).await, Some(404));

    let first = websocket(&offer, good()).await.unwrap();
    assert_eq!(of(good()).await, Some(423));
    drop((first, heard));
    drop(session);
    assert_eq!(of(good()).await, Some(404));
}

#[tokio::test]
async fn what_is_no_websocket_is_not_allowed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = server().await;
    let session = server.session().unwrap();
    session.open();
    let offer = session.offer();
    let path = &offer.url[offer.url.find("/session").unwrap()..];
    let mut stream = connect(offer).await;
    let request =
        format!("GET {path}/exec HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n", offer.authorization);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_terminal_that_is_not_there_yet_is_waited_for() {
    let server = server().await;
    let session = server.session().unwrap();
    session.open();
    let mut early = std::pin::pin!(websocket(session.offer(), request(session.offer(), PLAIN)));
    // The request is under way, and unanswered.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut early).await.is_err());
    let heard = with_terminal(&session);
    let mut socket = early.await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary("$ "));
    drop(heard);
}

#[tokio::test]
async fn a_shell_that_does_not_start_frees_the_place() {
    let server = server().await;
    let session = server.session().unwrap();
    session.open();
    session.set_terminal(Arc::new(Echo { heard: mpsc::unbounded_channel().0, fails: true }));
    for _ in 0..2 {
        assert_eq!(websocket(session.offer(), request(session.offer(), PLAIN)).await.err(), Some(500));
    }
    assert!(!session.is_connected());
}

#[tokio::test]
async fn the_end_of_a_job_is_said_and_frames_have_a_limit() {
    let server = server().await;
    let session = server.session().unwrap();
    session.open();
    let mut heard = with_terminal(&session);
    let mut socket = websocket(session.offer(), request(session.offer(), PLAIN)).await.unwrap();
    next(&mut socket).await;
    socket.send(Message::binary(vec![b'x'; 65 << 10])).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("it goes on") };
    assert_eq!(frame.reason.as_str(), "a frame is longer than 65536 bytes");
    assert_eq!(hear(&mut heard).await, "gone");
    tokio::time::timeout(LIMIT, session.disconnected()).await.unwrap();

    let mut socket = websocket(session.offer(), request(session.offer(), PLAIN)).await.unwrap();
    next(&mut socket).await;
    session.close("terminal session timed out");
    let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("it goes on") };
    assert_eq!(frame.reason.as_str(), "terminal session timed out");
}

#[tokio::test]
async fn an_address_may_be_advertised_and_must_be_free() {
    let of = |listen: &str, advertise: Option<&str>| ServerOptions {
        listen_address: listen.to_owned(),
        advertise_address: advertise.map(str::to_owned),
    };
    let server = SessionServer::start(&of("127.0.0.1:0", Some("runner.example.com:8093"))).await.unwrap();
    let offer = server.session().unwrap().offer().clone();
    assert!(offer.url.starts_with("https://runner.example.com:8093/session/"), "{offer:?}");
    assert!(!format!("{offer:?}").contains(&offer.authorization));
    let taken = server.address().to_string();
    let error = SessionServer::start(&of(&taken, None)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on `{taken}`"));
    let error = SessionServer::start(&of(":0", None)).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"`listen_address = ":0"` is no address: it names no host, so GitLab could not be told one: set `advertise_address`"#);
}
