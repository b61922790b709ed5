//! Serving a repository to a guest by git's own protocol, one `git upload-pack` for each connection.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tart_net::StreamService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::process::{Child, Command};

/// How long a guest may take to say what it wants.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// Longest request, in bytes.
const MAX_REQUEST: usize = 4096;

/// Bytes of a request's length.
const LENGTH: usize = 4;

/// What a guest may ask for.
const SERVICE: &str = "git-upload-pack";

/// Serves one repository, whatever path the guest names.
#[derive(Debug)]
pub(super) struct Upload {
    repository: PathBuf,
}

impl Upload {
    pub(super) fn new(repository: PathBuf) -> Self {
        Self { repository }
    }

    async fn answer(&self, mut connection: DuplexStream) -> Result<(), String> {
        let request = tokio::time::timeout(REQUEST_LIMIT, read_request(&mut connection)).await;
        let request =
            request.map_err(|_| "the guest asks for nothing".to_owned())?.map_err(|e| e.to_string())?;
        let Some(protocol) = parse(&request) else {
            let refusal = "ERR only fetches are served here";
            let line = format!("{:04x}{refusal}", refusal.len() + LENGTH);
            return connection.write_all(line.as_bytes()).await.map_err(|e| e.to_string());
        };
        let mut child = self.start(protocol).map_err(|error| format!("cannot run git: {error}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("git has no pipes".to_owned());
        };
        let (from, to) = tokio::io::split(connection);
        tokio::select! {
            () = copy(from, input) => std::future::pending().await,
            () = copy(output, to) => {}
        }
        child.wait().await.map(drop).map_err(|e| e.to_string())
    }

    fn start(&self, protocol: &str) -> std::io::Result<Child> {
        let mut command = Command::new("git");
        command.args(["upload-pack", "--strict", "--timeout=600"]).arg(&self.repository);
        // Nothing of the user's configuration, and no program that it may name, has to do with this.
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_NO_LAZY_FETCH", "1").env("GIT_PROTOCOL", protocol);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()
    }
}

#[async_trait]
impl StreamService for Upload {
    async fn serve(&self, connection: DuplexStream) {
        if let Err(error) = self.answer(connection).await {
            tracing::debug!(error, "a fetch from the working tree failed");
        }
    }
}

/// Copies up to the end of either side, and says that it is the end.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // What broke shows on the other side.
    let _broken = tokio::io::copy(&mut from, &mut to).await;
    let _gone = to.shutdown().await;
}

async fn read_request(connection: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut digits = [0; LENGTH];
    connection.read_exact(&mut digits).await?;
    let length = std::str::from_utf8(&digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
    let length = length.filter(|length| (LENGTH..=MAX_REQUEST).contains(length));
    let Some(length) = length else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a request of git"));
    };
    let mut request = vec![0; length - LENGTH];
    connection.read_exact(&mut request).await?;
    Ok(request)
}

/// The protocol version to use, as git's environment has it, if the request is one to fetch:
/// `git-upload-pack /path\0host=name\0\0version=2\0`.
fn parse(request: &[u8]) -> Option<&'static str> {
    let mut parts = request.split(|byte| *byte == 0);
    let first = parts.next()?;
    if first.split(|byte| *byte == b' ').next()? != SERVICE.as_bytes() {
        return None;
    }
    Some(if parts.any(|part| part == b"version=2") { "version=2" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fetches_are_understood() {
        assert_eq!(parse(b"git-upload-pack /x.git\0host=h\0\0version=2\0"), Some("version=2"));
        assert_eq!(parse(b"git-upload-pack /x.git\0host=h\0"), Some(""));
        assert_eq!(parse(b"git-receive-pack /x.git\0host=h\0"), None);
        assert_eq!(parse(b"git-upload-packs /x"), None);
        assert_eq!(parse(b""), None);
    }

    #[tokio::test]
    async fn a_request_that_is_too_long_or_none_is_an_error() {
        for bytes in [&b"ffffxx"[..], b"0003", b"zzzz", b"+04a", b"00"] {
            assert!(read_request(&mut &*bytes).await.is_err(), "{bytes:?}");
        }
        assert_eq!(read_request(&mut &b"0006ab"[..]).await.unwrap(), b"ab");
    }

    #[tokio::test]
    async fn a_push_is_refused_in_gits_words() {
        let (mut near, far) = tokio::io::duplex(4096);
        let upload = Upload::new("/nowhere".into());
        near.write_all(b"0019git-receive-pack /x\0h\0").await.unwrap();
        upload.answer(far).await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "0024ERR only fetches are served here");
    }

    #[tokio::test]
    async fn git_fetches_through_it() {
        use tokio::net::TcpListener;
        let directory = tempfile::tempdir().unwrap();
        let script =
            "git init -q s && cd s && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x";
        let made = std::process::Command::new("sh").args(["-c", script]).current_dir(&directory).status();
        assert!(made.unwrap().success());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("git://{}/any/path.git", listener.local_addr().unwrap());
        let upload = Upload::new(directory.path().join("s/.git"));
        let serve = async {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let (mut near, far) = tokio::io::duplex(65536);
                let copied = tokio::io::copy_bidirectional(&mut socket, &mut near);
                let (_, copied) = tokio::join!(upload.serve(far), copied);
                copied.unwrap();
            }
        };
        let mut fetch = Command::new("git");
        let fetch = fetch.args(["ls-remote", &url]).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::select! {
            output = fetch => output.unwrap(),
            () = serve => unreachable!("it serves for ever"),
        };
        assert!(String::from_utf8_lossy(&output.stdout).contains("HEAD"), "{output:?}");
    }

    proptest::proptest! {
        #[test]
        fn hostile_requests_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _parsed = parse(&bytes);
        }
    }
}
