//! QEMU's control protocol (docs/interop/qmp-spec): JSON lines, answers matched to commands by id.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

/// Longest line that is taken, in bytes. The answers to the commands used here are far shorter.
const MAX_LINE: u64 = 256 * 1024;

/// The control connection cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("broke its control protocol: {0}")]
    Protocol(String),
    #[error("refused `{command}`: {reason}")]
    Refused { command: String, reason: String },
    #[error("did not answer `{command}` within {} seconds", .limit.as_secs())]
    Timeout { command: String, limit: Duration },
    #[error("closed its control connection")]
    Closed,
}

/// A line from QEMU.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        _greeting: Value,
    },
    Event {
        event: String,
        #[serde(default)]
        data: Value,
    },
    Error {
        error: ErrorBody,
        id: Option<u64>,
    },
    Return {
        #[serde(rename = "return")]
        value: Value,
        id: Option<u64>,
    },
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    desc: String,
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// A control connection. Everything QEMU says is bounded and may be hostile: a guest may have taken it over.
#[derive(Debug)]
pub(crate) struct Qmp<W> {
    writer: tokio::sync::Mutex<W>,
    pending: Pending,
    next_id: AtomicU64,
    migration: watch::Receiver<String>,
    reader: JoinHandle<()>,
}

impl<W: AsyncWrite + Unpin> Qmp<W> {
    /// Waits for the greeting and starts the command mode.
    pub(crate) async fn start<R>(reader: R, writer: W, limit: Duration) -> Result<Self, QmpError>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let late = |_| QmpError::Timeout { command: "its greeting".to_owned(), limit };
        let mut lines = BufReader::new(reader);
        match timeout(limit, next(&mut lines)).await.map_err(late)?? {
            Message::Greeting { .. } => {}
            other => return Err(QmpError::Protocol(format!("it greeted with {other:?}"))),
        }
        let pending = Pending::default();
        let (changed, migration) = watch::channel(String::new());
        let reader = tokio::spawn(read(lines, pending.clone(), changed));
        let writer = tokio::sync::Mutex::new(writer);
        let qmp = Self { writer, pending, next_id: AtomicU64::new(1), migration, reader };
        qmp.execute("qmp_capabilities", json!({}), limit).await?;
        Ok(qmp)
    }

    /// Runs a command and gives its answer.
    pub(crate) async fn execute(
        &self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.pending).insert(id, answer);
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": id }));
        let exchange = async {
            // The reader empties the map when it ends; it must not have done so before the insertion above.
            if self.reader.is_finished() {
                return Err(QmpError::Closed);
            }
            self.writer.lock().await.write_all(line.as_bytes()).await.map_err(|_| QmpError::Closed)?;
            answered.await.map_err(|_| QmpError::Closed)
        };
        let result = timeout(limit, exchange).await;
        lock(&self.pending).remove(&id);
        let command = command.to_owned();
        match result {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(reason))) => Err(QmpError::Refused { command, reason }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(QmpError::Timeout { command, limit }),
        }
    }

    /// Waits until a migration that was asked for, with its events on, is over; how it ended.
    pub(crate) async fn migrated(&self, limit: Duration) -> Result<String, QmpError> {
        let mut migration = self.migration.clone();
        let over =
            migration.wait_for(|status| matches!(status.as_str(), "completed" | "failed" | "cancelled"));
        match timeout(limit, over).await {
            Ok(Ok(status)) => Ok(status.clone()),
            Ok(Err(_)) => Err(QmpError::Closed),
            Err(_) => Err(QmpError::Timeout { command: "migrate".to_owned(), limit }),
        }
    }
}

impl<W> Drop for Qmp<W> {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Hands answers to whoever waits for them, until the connection ends or breaks the protocol.
async fn read(mut lines: impl AsyncBufRead + Unpin, pending: Pending, migration: watch::Sender<String>) {
    loop {
        let (id, answer) = match next(&mut lines).await {
            Ok(Message::Return { value, id }) => (id, Ok(value)),
            Ok(Message::Error { error, id }) => (id, Err(error.desc)),
            Ok(Message::Event { event, data }) => {
                tracing::debug!(event, %data, "event of a virtual machine");
                if event == "MIGRATION"
                    && let Some(status) = data.get("status").and_then(Value::as_str)
                {
                    migration.send_replace(status.to_owned());
                }
                continue;
            }
            Ok(Message::Greeting { .. }) => continue,
            Err(error) => {
                tracing::debug!(%error, "the control connection ended");
                break;
            }
        };
        let waiting = id.and_then(|id| lock(&pending).remove(&id));
        if let Some(waiting) = waiting {
            // Whoever asked may have given up.
            let _gave_up = waiting.send(answer);
        }
    }
    lock(&pending).clear();
}

async fn next(lines: &mut (impl AsyncBufRead + Unpin)) -> Result<Message, QmpError> {
    let mut line = Vec::new();
    let failed = |e: io::Error| QmpError::Protocol(e.to_string());
    loop {
        line.clear();
        let len = lines.take(MAX_LINE).read_until(b'\n', &mut line).await.map_err(failed)?;
        if len == 0 {
            return Err(QmpError::Closed);
        }
        if line.last() != Some(&b'\n') {
            return Err(QmpError::Protocol("a line is too long or cut off".to_owned()));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        return serde_json::from_slice(&line).map_err(|e| QmpError::Protocol(e.to_string()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
