//! What a child process prints, as it comes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;

/// The lines of all outputs of a process, in the order of their arrival.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    text: Arc<Mutex<String>>,
    changed: watch::Sender<()>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { text: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// Reads one of the process's outputs to its end.
    pub(crate) async fn read(self, from: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            self.lock().push_str(&String::from_utf8_lossy(&line));
            self.changed.send_replace(());
        }
    }

    pub(crate) fn text(&self) -> String {
        self.lock().clone()
    }

    /// Waits until a text was printed.
    pub(crate) async fn wait_for(&self, text: &str, limit: Duration) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        let found = async {
            while !self.lock().contains(text) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let limit = tart_proto::time::scaled(limit);
        let timeout = tokio::time::timeout(limit, found).await;
        timeout.map_err(|_| format!("{text:?} was not printed within {limit:?}"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
