//! The task that owns a connection.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{MuxError, Shared};
use crate::frame::{Decoder, Item};

/// Bytes to read at once.
const READ: usize = 64 * 1024;

/// Encoded bytes from which on no more frames are taken before they are written.
const BATCH: usize = 64 * 1024;

/// A write buffer that one large message has made larger than this is given back.
const KEEP: usize = 4 * BATCH;

/// Moves frames until the connection ends.
pub(super) async fn run<R, W>(shared: Arc<Shared>, mut reader: R, mut writer: W, mut decoder: Decoder)
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let end = tokio::select! {
        end = read(&shared, &mut reader, &mut decoder) => end,
        end = write(&shared, &mut writer) => end,
        () = shared.abandoned.notified() => Ok(()),
    };
    // Whoever is told of the end may use the connection again.
    drop((reader, writer));
    shared.lock().finish(end.err().unwrap_or(MuxError::Closed));
    shared.events.notify_waiters();
}

async fn read<R>(shared: &Shared, reader: &mut R, decoder: &mut Decoder) -> Result<(), MuxError>
where
    R: AsyncRead + Unpin,
{
    loop {
        while let Some(item) = decoder.next_item()? {
            let frame = match item {
                Item::Frame(frame) => frame,
                Item::Preamble(preamble) => return Err(MuxError::NewSession(preamble)),
            };
            let consequences = shared.lock().receive(frame)?;
            if consequences.write {
                shared.write.notify_one();
            }
            if consequences.event {
                shared.events.notify_waiters();
            }
        }
        let buffer = decoder.buffer_mut();
        buffer.reserve(READ);
        if reader.read_buf(buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(shared: &Shared, writer: &mut W) -> Result<(), MuxError> {
    let mut batch = BytesMut::new();
    loop {
        fill(shared, &mut batch)?;
        if batch.is_empty() {
            shared.write.notified().await;
            continue;
        }
        writer.write_all(&batch).await?;
        writer.flush().await?;
        if batch.capacity() > KEEP {
            batch = BytesMut::new();
        }
        batch.clear();
    }
}

fn fill(shared: &Shared, batch: &mut BytesMut) -> Result<(), MuxError> {
    let mut state = shared.lock();
    while batch.len() < BATCH {
        match state.next_frame() {
            Some(frame) => frame.encode(batch)?,
            None => break,
        }
    }
    Ok(())
}
