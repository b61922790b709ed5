//! Streams to the agent over Firecracker's vsock, which on the host is unix sockets (microvm.md 1.4).
//!
//! The agent connects out once as it comes up: Firecracker then connects to `<socket>_<port>`, where the driver listens.
//! Later streams are asked for at `<socket>` by the line `CONNECT <port>`.

use std::{io, os::unix::net::UnixListener as StdUnixListener, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    place::{Place, Socket},
    requests::VSOCK,
};

/// Port of the agent in the guest, and the one on the host that it reports to.
const PORT: u32 = 1024;

/// Longest answer to `CONNECT`: `OK` and a port.
const MAX_ANSWER: usize = 32;

/// How long an answer to `CONNECT` may take. Firecracker itself gives up after 2 seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Between two attempts: nothing says when the agent listens.
const PAUSE: Duration = Duration::from_millis(20);

/// Name of the socket that the agent's report comes to.
pub(super) fn reports() -> String {
    format!("{VSOCK}_{PORT}")
}

/// The host's end of a machine's vsock.
#[derive(Debug)]
pub(super) struct Vsock {
    place: Arc<Place>,
    /// Where the agent reports; only the first stream comes from there.
    reports: Mutex<Option<UnixListener>>,
}

impl Vsock {
    /// The vsock of a machine whose agent reports here; that of one that goes on from another has reported already.
    pub(super) fn new(place: Arc<Place>, reports: Option<StdUnixListener>) -> io::Result<Self> {
        let reports = reports.map(UnixListener::from_std).transpose()?;
        Ok(Self { place, reports: Mutex::new(reports) })
    }

    /// The next stream: the agent's report if that was not taken, else a new connection. Waits for the agent for as
    /// long as it takes.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        let mut reports = self.reports.lock().await;
        if let Some(listener) = reports.as_ref() {
            let (stream, _) = listener.accept().await?;
            *reports = None;
            return Ok(stream);
        }
        loop {
            match timeout(ANSWER_LIMIT, self.dial()).await {
                Ok(Ok(Some(stream))) => return Ok(stream),
                // Nobody listens yet: Firecracker closes the connection without a word.
                Ok(Ok(None)) | Err(_) => sleep(PAUSE).await,
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    async fn dial(&self) -> io::Result<Option<UnixStream>> {
        let mut stream = self.place.connect(Socket::Agent).await?;
        match stream.write_all(format!("CONNECT {PORT}\n").as_bytes()).await {
            Err(error) if is_end(&error) => return Ok(None),
            written => written?,
        }
        let mut answer = Vec::new();
        // Byte by byte: what follows the line is the agent's.
        while answer.last() != Some(&b'\n') {
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(error) if is_end(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            if answer.len() > MAX_ANSWER {
                return Err(unexpected(&answer));
            }
        }
        if is_ok(&answer) { Ok(Some(stream)) } else { Err(unexpected(&answer)) }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// `OK 1073741824`.
fn is_ok(answer: &[u8]) -> bool {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    text.strip_prefix("OK ").is_some_and(|port| port.trim_end_matches('\n').parse::<u32>().is_ok())
}

fn unexpected(answer: &[u8]) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the vsock answers {:?}", String::from_utf8_lossy(answer)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_right_answer_is_one() {
        assert!(is_ok(b"OK 1073741824\n"));
        for wrong in [&b"OK\n"[..], b"ok 1\n", b"OK x\n", b"ERR\n", b"OK 99999999999\n"] {
            assert!(!is_ok(wrong));
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _any = is_ok(&bytes);
        }
    }
}
