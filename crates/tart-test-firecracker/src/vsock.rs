//! The guest's end of the vsock: an agent that greets whoever connects.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

use crate::plan::Plan;

/// Port of the agent, and the one that it reports to.
const PORT: u32 = 1024;

/// Longest command, in bytes.
const MAX_COMMAND: usize = 32;

/// The sockets.
#[derive(Debug)]
pub(crate) struct Vsock {
    path: PathBuf,
    listener: UnixListener,
}

impl Vsock {
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), listener: UnixListener::bind(path)? })
    }

    /// Its path and who listens there.
    pub(crate) fn into_parts(self) -> (PathBuf, UnixListener) {
        (self.path, self.listener)
    }

    /// Plays the guest: reports to the host, then greets whoever connects to the agent.
    pub(crate) async fn play(self, plan: Plan) {
        let report = async {
            if plan.reports
                && let Ok(mut stream) = UnixStream::connect(format!("{}_{PORT}", self.path.display())).await
            {
                let _gone = stream.write_all(b"it is up\n").await;
                hold(stream).await;
            }
        };
        let serve = async {
            let mut closes = plan.closes;
            while let Ok((stream, _)) = self.listener.accept().await {
                if closes > 0 {
                    // Nobody listens in the guest: the connection is closed without a word.
                    closes -= 1;
                    continue;
                }
                tokio::task::spawn(greet(stream, plan.answer.clone()));
            }
        };
        tokio::join!(report, serve);
    }
}

async fn greet(stream: UnixStream, answer: Option<String>) {
    let mut stream = BufReader::new(stream);
    let mut command = String::new();
    let read = stream.read_line(&mut command).await;
    let port = command.trim().split_once(' ').filter(|(word, _)| word.eq_ignore_ascii_case("CONNECT"));
    let known = port.and_then(|(_, port)| port.parse::<u32>().ok()) == Some(PORT);
    if read.is_err() || command.len() > MAX_COMMAND || !known {
        return;
    }
    let answer = answer.unwrap_or_else(|| "OK 1073741824\nit is here\n".to_owned());
    let _gone = stream.write_all(answer.as_bytes()).await;
    hold(stream.into_inner()).await;
}

/// Keeps a connection until the other end is gone.
async fn hold(stream: UnixStream) {
    let mut buffer = [0; 256];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}
