//! Proxies of the environment, and certificates. The client runs in a process of its own, since the environment is one
//! of processes, and a registry that is not on loopback is one behind the proxy.

use std::{
    path::Path,
    process::Output,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tart_registry::{Auth, Registry, RegistrySettings, parse_reference};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

use crate::server::{Reply, Request, descriptor, read, sha256};

/// Says what the other process does: `certs`, `insecure`, `plain`, `mirrors` or `nothing`, and a directory of certificates.
const TASK: &str = "TART_TEST_TASK";
const CERTS: &str = "TART_TEST_CERTS";

const SECURE: &str = "registry.example.com";
const MANIFEST: &str = "{}";

/// The client's process.
#[tokio::test]
async fn client_in_a_process_of_its_own() {
    let Ok(task) = std::env::var(TASK) else { return };
    let mut settings = RegistrySettings { attempts: 1, ..Default::default() };
    match &*task {
        "certs" => settings.certs_dir = std::env::var_os(CERTS).map(Into::into),
        "insecure" => settings.insecure = vec![SECURE.to_owned(), "plain.example.com:5000".to_owned()],
        _ => {}
    }
    let registry = Registry::new(settings).unwrap();
    if task == "mirrors" {
        return fetch_from_mirrors().await;
    }
    let images = match &*task {
        "insecure" => &["registry.example.com/app:1", "plain.example.com:5000/app:1"][..],
        "plain" => &["tunnel.example.com/app:1"],
        _ => &["registry.example.com/app:1"],
    };
    for image in images {
        let digest = registry.digest(&parse_reference(image).unwrap(), &Auth::Anonymous).await;
        let digest = digest.unwrap_or_else(|error| panic!("error: {error}"));
        assert_eq!(digest.to_string(), sha256(MANIFEST.as_bytes()));
    }
}

const BLOB: &[u8] = b"a layer of the Hub";

/// One mirror has too much, one has something else; the Hub has it.
async fn fetch_from_mirrors() {
    let mirrors = ["long", "forged"].map(|name| format!("http://{name}.example.com/").parse().unwrap());
    let settings = RegistrySettings {
        attempts: 1,
        insecure: vec!["registry-1.docker.io".to_owned()],
        mirrors: mirrors.to_vec(),
        ..Default::default()
    };
    let registry = Registry::new(settings).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("layer");
    let image = parse_reference("app").unwrap();
    let fetched = registry.fetch_blob(&image, &descriptor(BLOB), &file, &Auth::Anonymous, &|_| {}).await;
    fetched.unwrap_or_else(|error| panic!("error: {error}"));
    assert_eq!(std::fs::read(file).unwrap(), BLOB);
}

async fn client(task: &str, proxy: &Proxy, certs: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "proxy::client_in_a_process_of_its_own", "--nocapture"]);
    for name in ["NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy", "http_proxy"] {
        command.env_remove(name);
    }
    let address = format!("http://{}", proxy.address);
    command.env("HTTPS_PROXY", &address).env("HTTP_PROXY", &address);
    command.env(TASK, task).env(CERTS, certs).kill_on_drop(true).output().await.unwrap()
}

/// A proxy with the registries behind it: one with TLS, and one without.
struct Proxy {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _lost = pass(stream, &acceptor, &lines).await;
            }
        });
        Self { address, seen, task }
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(request: &Request) -> Reply {
    if request.path.contains("/blobs/") {
        let host = request.header("host").unwrap_or_default();
        return match host.split('.').next() {
            Some("long") => Reply::new(200, BLOB.repeat(2)),
            Some("forged") => Reply::new(200, vec![b'x'; BLOB.len()]),
            _ => Reply::new(200, BLOB),
        };
    }
    match request.path.ends_with("/v2/app/manifests/1") {
        true => Reply::new(200, MANIFEST).header("Docker-Content-Digest", sha256(MANIFEST.as_bytes())),
        false => Reply::new(200, ""),
    }
}

async fn pass(mut stream: TcpStream, acceptor: &TlsAcceptor, seen: &Mutex<Vec<String>>) -> Option<()> {
    let note = |request: &Request| seen.lock().unwrap().push(format!("{} {}", request.method, request.path));
    let request = read(&mut stream).await?;
    note(&request);
    if request.method != "CONNECT" {
        answer(&request).write(&request, &mut stream).await;
    } else if request.path.starts_with(SECURE) {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        let mut stream = acceptor.accept(stream).await.ok()?;
        let request = read(&mut stream).await?;
        note(&request);
        answer(&request).write(&request, &mut stream).await;
    } else if request.path.starts_with("tunnel.") {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        stream.readable().await.ok()?;
        stream.write_all(b"HTTP/1.1 400 X\r\n\r\n").await.ok()?;
        // The client says when it has had enough.
        let _gone = stream.read_to_end(&mut Vec::new()).await;
    } else {
        Reply::new(502, "").write(&request, &mut stream).await;
    }
    Some(())
}

/// A server that wants to see a certificate of its clients, or not; the files for clients are put into a directory.
fn acceptor(directory: &Path, wants_client: bool) -> TlsAcceptor {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap(), key)
    };
    let ((server, server_key), (client, client_key)) = (issue(SECURE), issue("client"));
    let directory = directory.join(SECURE);
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("ca.crt"), ca.pem()).unwrap();
    if wants_client {
        std::fs::write(directory.join("client.cert"), client.pem()).unwrap();
        std::fs::write(directory.join("client.key"), client_key.serialize_pem()).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = if wants_client {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        config.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![server.der().clone()], key).unwrap()))
}

/// The error of the client.
fn error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.strip_prefix("error: "));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

fn assert_success(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn certificates_of_a_registry_are_used_through_a_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(acceptor(directory.path(), true)).await;
    assert_success(&client("certs", &proxy, directory.path()).await);
    assert_eq!(proxy.lines(), ["CONNECT registry.example.com:443", "HEAD /v2/app/manifests/1"]);
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(acceptor(directory.path(), false)).await;
    let output = client("nothing", &proxy, directory.path()).await;
    insta::assert_snapshot!(error(&output), @"cannot talk to registry.example.com safely: client error (Connect): invalid peer certificate: UnknownIssuer; if it is the right one, put the certificate of its authority into `ca.crt` of its directory in `registry_certs_dir`");
    assert_eq!(proxy.lines(), ["CONNECT registry.example.com:443"], "nothing was asked");
}

#[tokio::test]
async fn a_registry_without_tls_is_not_called_unless_it_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(acceptor(directory.path(), false)).await;
    let output = client("plain", &proxy, directory.path()).await;
    insta::assert_snapshot!(error(&output), @"cannot talk to tunnel.example.com safely: client error (Connect): received corrupt message of type InvalidContentType; it does not speak TLS; if that is right, list it in `insecure_registries`");
}

#[tokio::test]
async fn insecure_registries_may_have_any_certificate_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(acceptor(directory.path(), false)).await;
    assert_success(&client("insecure", &proxy, directory.path()).await);
    insta::assert_snapshot!(proxy.lines().join("\n"), @r"
    CONNECT registry.example.com:443
    GET /v2/
    CONNECT registry.example.com:443
    HEAD /v2/app/manifests/1
    CONNECT plain.example.com:5000
    GET http://plain.example.com:5000/v2/
    HEAD http://plain.example.com:5000/v2/app/manifests/1
    ");
}

#[tokio::test]
async fn what_mirrors_have_wrong_comes_from_the_hub() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(acceptor(directory.path(), false)).await;
    assert_success(&client("mirrors", &proxy, directory.path()).await);
    let lines = proxy.lines().join("\n").replace(descriptor(BLOB).digest().as_ref(), "DIGEST");
    insta::assert_snapshot!(lines, @r"
    GET http://long.example.com/v2/library/app/blobs/DIGEST
    GET http://forged.example.com/v2/library/app/blobs/DIGEST
    CONNECT registry-1.docker.io:443
    GET http://registry-1.docker.io/v2/
    GET http://registry-1.docker.io/v2/library/app/blobs/DIGEST
    ");
}
