//! QEMU's control connection.

use std::io;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{Mutex, mpsc, oneshot},
    task::spawn_local,
};

/// What QEMU tells without being asked: a name, and what belongs to it.
pub(super) type Event = (String, Value);

type Answer = Result<Value, String>;

/// The connection.
#[derive(Debug)]
pub(super) struct Qmp {
    /// Held until a command is answered.
    writer: Mutex<OwnedWriteHalf>,
    waiting: mpsc::UnboundedSender<oneshot::Sender<Answer>>,
    migrated: Mutex<mpsc::UnboundedReceiver<String>>,
}

impl Qmp {
    /// Begins. Events other than those of migrations are given away, the end last.
    pub(super) async fn begin(
        stream: UnixStream,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, String> {
        let (reader, writer) = stream.into_split();
        let (waiting, mut waiters) = mpsc::unbounded_channel::<oneshot::Sender<Answer>>();
        let (ends, migrated) = mpsc::unbounded_channel();
        spawn_local(async move {
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(mut message) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(event) = message["event"].as_str().map(str::to_owned) {
                    let status = message["data"]["status"].as_str().unwrap_or_default();
                    if event == "MIGRATION" && matches!(status, "completed" | "failed") {
                        let _unwanted = ends.send(status.to_owned());
                    }
                    let _unwanted = events.send((event, message["data"].take()));
                    continue;
                }
                let answer = match message.get("return") {
                    Some(value) => Ok(value.clone()),
                    None if message.get("error").is_some() => {
                        Err(message["error"]["desc"].as_str().unwrap_or_default().to_owned())
                    }
                    None => continue,
                };
                if let Ok(waiter) = waiters.try_recv() {
                    let _gone = waiter.send(answer);
                }
            }
        });
        let qmp = Self { writer: Mutex::new(writer), waiting, migrated: Mutex::new(migrated) };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command.
    pub(super) async fn execute(&self, command: &str, arguments: Value) -> Answer {
        let gone = |_: io::Error| "QEMU is gone".to_owned();
        let mut writer = self.writer.lock().await;
        let (sender, answer) = oneshot::channel();
        self.waiting.send(sender).map_err(|_| "QEMU is gone".to_owned())?;
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        writer.write_all(line.as_bytes()).await.map_err(gone)?;
        let answer = answer.await.map_err(|_| "QEMU is gone".to_owned())?;
        answer.map_err(|problem| format!("{command}: {problem}"))
    }

    /// Memory that is shared with QEMU is not part of what it saves and loads; and the end of that is told.
    pub(super) async fn prepare(&self) -> Result<(), String> {
        let on = |capability: &str| json!({ "capability": capability, "state": true });
        let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
        self.execute("migrate-set-capabilities", capabilities).await.map(drop)
    }

    /// Waits until a machine is saved or loaded.
    pub(super) async fn migrated(&self) -> Result<(), String> {
        match self.migrated.lock().await.recv().await.as_deref() {
            Some("completed") => Ok(()),
            Some(_) => {
                let asked = self.execute("query-migrate", json!({})).await?;
                Err(asked["error-desc"].as_str().unwrap_or("it failed").to_owned())
            }
            None => Err("QEMU is gone".to_owned()),
        }
    }
}
