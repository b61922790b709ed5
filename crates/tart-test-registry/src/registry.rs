//! The registry.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::Context as _;
use serde_json::json;
use tempfile::TempDir;

use crate::{ImageBuilder, process::Server};

/// How a registry is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names and passwords of those who may use it; everyone may if empty.
    pub users: Vec<(String, String)>,
    /// HTTPS with a certificate of [`TestRegistry::ca_file`], else plain HTTP.
    pub tls: bool,
}

/// Debian's `docker-registry` on a free port of loopback. It ends when the value is dropped, or with the test.
#[derive(Debug)]
pub struct TestRegistry {
    server: Server,
    directory: TempDir,
    address: String,
    options: Options,
    markers: AtomicUsize,
}

impl TestRegistry {
    /// Starts an empty registry and waits until it listens.
    ///
    /// # Errors
    /// If a program is missing or the registry ends at once.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        if options.tls {
            write_certificates(directory.path())?;
        }
        if !options.users.is_empty() {
            fs::write(directory.path().join("htpasswd"), htpasswd(&options.users)?)?;
        }
        let (server, address) = serve(directory.path(), &options, "127.0.0.1:0")?;
        Ok(Self { server, directory, address, options, markers: AtomicUsize::new(0) })
    }

    /// Host and port, as the first part of image names.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The name of an image here: `reference("a/b:1")` is `127.0.0.1:PORT/a/b:1`.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The certificate authority of a registry with TLS.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Kills the registry. What is stored stays for [`Self::restart`].
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port with the same images.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.server.kill();
        (self.server, self.address) = serve(self.directory.path(), &self.options, &self.address)?;
        Ok(())
    }

    /// Copies an image of an OCI layout here with `skopeo`, all processors of an index included.
    ///
    /// # Errors
    /// What skopeo says.
    pub fn push(&self, layout: &Path, tag: &str, name: &str) -> anyhow::Result<()> {
        self.copy(&format!("oci:{}:{tag}", layout.display()), name, &["--all"])
    }

    /// Writes an image to a layout of its own and copies it here.
    ///
    /// # Errors
    /// As [`Self::push`], or if the layout cannot be written.
    pub fn push_image(&self, image: &ImageBuilder, name: &str) -> anyhow::Result<()> {
        let layout = tempfile::tempdir()?;
        image.write(layout.path(), "one")?;
        self.push(layout.path(), "one", name)
    }

    /// The same with a manifest as Docker makes them instead of OCI's.
    ///
    /// # Errors
    /// What skopeo says.
    pub fn push_docker_schema2(&self, layout: &Path, tag: &str, name: &str) -> anyhow::Result<()> {
        self.copy(&format!("oci:{}:{tag}", layout.display()), name, &["--format", "v2s2"])
    }

    /// Copies anything that skopeo reads.
    ///
    /// # Errors
    /// What skopeo says.
    pub fn copy(&self, source: &str, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]).args(arguments);
        if let Some((user, password)) = self.options.users.first() {
            command.arg(format!("--dest-creds={user}:{password}"));
        }
        command.args([source, &format!("docker://{}", self.reference(name))]);
        run(&mut command).map(drop)
    }

    /// The digests of an image's layers.
    ///
    /// # Errors
    /// What skopeo says.
    pub fn layers(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new("skopeo");
        command.args(["inspect", "--raw", "--tls-verify=false"]);
        if let Some((user, password)) = self.options.users.first() {
            command.arg(format!("--creds={user}:{password}"));
        }
        let manifest = run(command.arg(format!("docker://{}", self.reference(name))))?;
        let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
        let layers = manifest["layers"].as_array().context("the manifest has no layers")?;
        Ok(layers.iter().filter_map(|layer| layer["digest"].as_str().map(str::to_owned)).collect())
    }

    /// The file of a stored blob (`sha256:...`), for tests that damage it.
    #[must_use]
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let start = hex.get(..2).unwrap_or_default();
        self.directory.path().join(format!("data/docker/registry/v2/blobs/sha256/{start}/{hex}/data"))
    }

    /// The request lines it has answered so far, such as `GET /v2/a/manifests/1 HTTP/1.1`, with their status. Only
    /// without TLS and users, and not of requests whose client has not read the end of the answer yet.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn requests(&self) -> anyhow::Result<Vec<String>> {
        // The log is written after the answer; it is complete up to here when this request is in it.
        let marker = format!("/v2/?marker={}", self.markers.fetch_add(1, Ordering::Relaxed));
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {marker} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        stream.read_to_end(&mut Vec::new())?;
        let (end, _) = self.server.stdout.wait_for(&format!("{marker} "))?;
        let lines = self.server.stdout.all();
        let lines = lines.iter().take(end).filter(|line| !line.contains("/v2/?marker="));
        Ok(lines.filter_map(|line| request(line)).collect())
    }

    /// What it has written to its log, for messages of failed tests.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.stderr.all().join("\n")
    }
}

/// The request and the status of a line in the common log format.
fn request(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('"')?;
    let (request, rest) = rest.split_once('"')?;
    let status = rest.split_whitespace().next()?;
    Some(format!("{request} {status}"))
}

fn serve(directory: &Path, options: &Options, address: &str) -> anyhow::Result<(Server, String)> {
    let mut config = json!({
        "version": "0.1",
        "log": { "level": "info", "accesslog": { "disabled": false } },
        "storage": {
            "filesystem": { "rootdirectory": directory.join("data") },
            "delete": { "enabled": true },
        },
        "http": { "addr": address, "secret": "of no use to anyone" },
    });
    if options.tls {
        config["http"]["tls"] =
            json!({ "certificate": directory.join("server.pem"), "key": directory.join("server.key") });
    }
    if !options.users.is_empty() {
        config["auth"] = json!({ "htpasswd": { "realm": "test", "path": directory.join("htpasswd") } });
    }
    let path = directory.join("config.json");
    // JSON is YAML.
    fs::write(&path, serde_json::to_vec(&config)?)?;
    let server = Server::start("docker-registry", vec!["serve".into(), path.display().to_string()])?;
    let (_, line) = server.stderr.wait_for("listening on ")?;
    let listening = line.split("listening on ").nth(1).unwrap_or_default();
    let address = listening.split([',', '"']).next().unwrap_or_default().to_owned();
    Ok((server, address))
}

/// The registry knows bcrypt only.
fn htpasswd(users: &[(String, String)]) -> anyhow::Result<String> {
    let line = |(user, password): &(String, String)| {
        // Test passwords are no secrets.
        run(Command::new("htpasswd").args(["-nbB", "-C", "4", user, password]))
    };
    Ok(users.iter().map(line).collect::<anyhow::Result<Vec<_>>>()?.concat())
}

fn write_certificates(directory: &Path) -> anyhow::Result<()> {
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate()?;
    let ca = rcgen::CertifiedIssuer::self_signed(ca, key)?;
    let server_key = rcgen::KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let server = rcgen::CertificateParams::new(names)?.signed_by(&server_key, &ca)?;
    fs::write(directory.join("ca.pem"), ca.pem())?;
    fs::write(directory.join("server.pem"), server.pem())?;
    fs::write(directory.join("server.key"), server_key.serialize_pem())?;
    Ok(())
}

/// Runs a program to its end.
///
/// # Errors
/// What it wrote to standard error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} failed ({}): {error}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
