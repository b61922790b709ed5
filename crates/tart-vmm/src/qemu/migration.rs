//! Saving a machine to a file, and going on from one. Checked with QEMU 7.2.

use std::{fs::File, io, os::fd::RawFd, time::Duration};

use serde_json::{Value, json};
use tart_proto::time::scaled;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::UnixListener,
};

use super::qmp::{Qmp, QmpError};
use crate::snapshot::MAX_STATE;

/// How long it may take to save or load the state of devices, some MiB.
const MIGRATION_LIMIT: Duration = Duration::from_secs(60);

/// How long a small command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Waits until the guest runs: at once, or from the state in a file that QEMU has open.
pub(super) async fn begin<W>(qmp: &Qmp<W>, state: Option<RawFd>, limit: Duration) -> Result<(), QmpError>
where
    W: AsyncWrite + Unpin,
{
    let Some(state) = state else {
        return qmp.execute("query-status", json!({}), limit).await.map(drop);
    };
    capabilities(qmp, limit).await?;
    qmp.execute("migrate-incoming", json!({ "uri": format!("fd:{state}") }), limit).await?;
    finish(qmp).await?;
    qmp.execute("cont", json!({}), limit).await.map(drop)
}

/// Stops the guest and writes the state of its devices to a file; its memory is in one already. QEMU, in its own
/// directory, sends the state to the socket of this name: of its open files it takes only those that came over QMP.
pub(super) async fn save<W: AsyncWrite + Unpin>(
    qmp: &Qmp<W>,
    socket: &str,
    listener: UnixListener,
    state: File,
) -> Result<(), QmpError> {
    let limit = scaled(COMMAND_LIMIT);
    qmp.execute("stop", json!({}), limit).await?;
    capabilities(qmp, limit).await?;
    let receiving = async {
        let received = tokio::time::timeout(scaled(MIGRATION_LIMIT), receive(listener, state)).await;
        let failed = |error: io::Error| QmpError::Protocol(format!("its state was not received: {error}"));
        received.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)
    };
    let sending = async {
        qmp.execute("migrate", json!({ "uri": format!("unix:{socket}") }), limit).await?;
        finish(qmp).await
    };
    tokio::try_join!(receiving, sending).map(|_| ())
}

/// Writes what one connection brings to a file, up to its limit.
async fn receive(listener: UnixListener, state: File) -> io::Result<()> {
    let (connection, _) = listener.accept().await?;
    let mut state = tokio::fs::File::from_std(state);
    let bytes = tokio::io::copy(&mut connection.take(MAX_STATE + 1), &mut state).await?;
    tokio::io::AsyncWriteExt::flush(&mut state).await?;
    if bytes > MAX_STATE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// Puts an image under a disk whose guest knows it as empty.
pub(super) async fn insert<W>(qmp: &Qmp<W>, device: &str, node: &str, image: Value) -> Result<(), QmpError>
where
    W: AsyncWrite + Unpin,
{
    let limit = scaled(COMMAND_LIMIT);
    qmp.execute("blockdev-add", image, limit).await?;
    let property =
        json!({ "path": format!("/machine/peripheral/{device}"), "property": "drive", "value": node });
    qmp.execute("qom-set", property, limit).await.map(drop)
}

/// Memory in files is left where it is, and the end is announced.
async fn capabilities<W: AsyncWrite + Unpin>(qmp: &Qmp<W>, limit: Duration) -> Result<(), QmpError> {
    let on = |capability: &str| json!({ "capability": capability, "state": true });
    let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
    qmp.execute("migrate-set-capabilities", capabilities, limit).await.map(drop)
}

async fn finish<W: AsyncWrite + Unpin>(qmp: &Qmp<W>) -> Result<(), QmpError> {
    let status = qmp.migrated(scaled(MIGRATION_LIMIT)).await?;
    if status == "completed" {
        return Ok(());
    }
    let asked = qmp.execute("query-migrate", json!({}), scaled(COMMAND_LIMIT)).await?;
    let reason = asked.get("error-desc").and_then(Value::as_str).unwrap_or(&status).to_owned();
    Err(QmpError::Refused { command: "migrate".to_owned(), reason })
}
