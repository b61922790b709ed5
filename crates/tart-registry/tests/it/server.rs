//! A server whose every answer is written by the test, down to where the connection is cut.

use std::sync::{Arc, Mutex};

use oci_spec::{
    distribution::Reference,
    image::{Descriptor, MediaType},
};
use sha2::{Digest as _, Sha256};
use tart_registry::{Registry, RegistrySettings};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The first byte that is wanted.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    /// Method, path, and what is of interest in the headers.
    fn line(&self) -> String {
        let mut line = format!("{} {}", self.method, self.path);
        for name in ["range", "authorization"] {
            if let Some(value) = self.header(name) {
                line = format!("{line} [{name}: {value}]");
            }
        }
        if !self.body.is_empty() {
            line = format!("{line} {}", self.body);
        }
        line
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    sent: usize,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref().to_vec();
        Self { status, headers: Vec::new(), sent: body.len(), body }
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sends no more than this of the body, and then closes the connection.
    pub(crate) fn cut(mut self, sent: usize) -> Self {
        self.sent = sent.min(self.body.len());
        self
    }

    /// Answers a request.
    pub(crate) async fn write(&self, request: &Request, stream: &mut (impl AsyncWrite + Unpin)) {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head = format!("{head}{name}: {value}\r\n");
        }
        head = format!("{head}Content-Length: {}\r\n\r\n", self.body.len());
        let body = if request.method == "HEAD" { &[][..] } else { &self.body[..self.sent] };
        // The client may have gone.
        let _gone = stream.write_all(&[head.as_bytes(), body].concat()).await;
        let _gone = stream.shutdown().await;
    }

    /// The part of a blob that a request wants.
    pub(crate) fn part(blob: &[u8], request: &Request) -> Self {
        match request.from() {
            None => Self::new(200, blob),
            Some(from) => Self::new(206, &blob[from..])
                .header("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len())),
        }
    }
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts it on loopback, without TLS. `answer` gets each request and how many came before it; those that find out
    /// how to speak to the server are not counted.
    pub(crate) async fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, Arc::clone(&seen), Arc::new(answer)));
        Self { address, seen, task }
    }

    /// What it was asked.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(Request::line).collect()
    }

    /// An image here.
    pub(crate) fn image(&self, name: &str) -> Reference {
        tart_registry::parse_reference(&format!("{}/{name}", self.address)).unwrap()
    }
}

type Answer = dyn Fn(&Request, usize) -> Reply + Send + Sync;

async fn serve(listener: TcpListener, seen: Arc<Mutex<Vec<Request>>>, answer: Arc<Answer>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // One after the other, so that the order of requests is that of their answers.
        let Some(request) = read(&mut stream).await else { continue };
        let reply = match &*request.path {
            "/v2/" => Reply::new(200, ""),
            _ => {
                let before = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request.clone());
                    seen.len() - 1
                };
                answer(&request, before)
            }
        };
        reply.write(&request, &mut stream).await;
    }
}

/// A request; nothing if it is no HTTP, as when a client tries TLS.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let more = stream.read_buf(&mut bytes).await.ok()?;
        if more == 0 || !bytes.first().is_some_and(u8::is_ascii_uppercase) {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut request = Request { method, path, headers, body: String::new() };
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}

/// A client that tries each call three times without waiting.
pub(crate) fn client() -> Registry {
    Registry::new(RegistrySettings { attempts: 3, backoff: std::time::Duration::ZERO, ..Default::default() })
        .unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What a manifest says of a blob.
pub(crate) fn descriptor(bytes: &[u8]) -> Descriptor {
    let digest: oci_spec::image::Digest = sha256(bytes).parse().unwrap();
    Descriptor::new(MediaType::ImageLayerGzip, bytes.len() as u64, digest)
}
