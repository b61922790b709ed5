//! Copying between a guest's stream and a connection of the host.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tart_proto::{StreamItem, StreamReader, StreamWriter, limits::MAX_DATA, message::CHANNEL_STDIN};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a connection; the only channel of its stream.
const CHANNEL: u8 = CHANNEL_STDIN;

/// How long a guest may take to close a connection that has ended.
const LINGER: Duration = Duration::from_secs(30);

/// Bytes that passed.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// From the guest.
    pub(crate) up: AtomicU64,
    /// To the guest.
    pub(crate) down: AtomicU64,
}

/// Copies both ways, each until its own end, then closes the stream; a connection that breaks resets it.
pub(crate) async fn both_ways(
    stream: tart_proto::Stream,
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    traffic: &Traffic,
) {
    let (reader, writer) = stream.split();
    let result = {
        let down = download(from, &writer, traffic);
        let up = upload(reader, to, traffic);
        tokio::pin!(up, down);
        tokio::select! {
            // A guest that is gone, or reset the connection, ends both ways at once.
            result = &mut up => match result {
                Ok(mut reader) => tokio::select! {
                    received = down => received.map(|()| reader),
                    gone = end(&mut reader) => Err(gone),
                },
                Err(gone) => Err(gone),
            },
            result = &mut down => match result {
                Ok(()) => up.await,
                Err(broken) => Err(broken),
            },
        }
    };
    match result {
        Ok(mut reader) => {
            if writer.close().await.is_ok() {
                // Dropping the reader before the guest has closed would reset what the guest has not read yet.
                let _slow = tokio::time::timeout(LINGER, end(&mut reader)).await;
            }
        }
        Err(reason) => writer.reset(&reason),
    }
}

/// Waits until the guest closes or resets a stream; what it still sends is dropped.
async fn end(reader: &mut StreamReader) -> String {
    loop {
        match reader.next().await {
            StreamItem::Closed => return "the guest closed the connection".to_owned(),
            StreamItem::Reset(reason) => return reason,
            _ => {}
        }
    }
}

/// From the guest to the connection, until the guest's end or until the connection takes no more. The latter is no
/// error: the connection may still have an answer. The error is the guest's own reset.
async fn upload(
    mut reader: StreamReader,
    mut to: impl AsyncWrite + Unpin,
    traffic: &Traffic,
) -> Result<StreamReader, String> {
    loop {
        match reader.next().await {
            StreamItem::Data { channel: CHANNEL, bytes } => {
                if to.write_all(&bytes).await.is_err() {
                    return Ok(reader);
                }
                traffic.up.fetch_add(u64::try_from(bytes.len()).unwrap_or(0), Ordering::Relaxed);
            }
            StreamItem::Eof { channel: CHANNEL } | StreamItem::Closed => {
                // A connection that is broken tells so in the other direction.
                let _broken = to.shutdown().await;
                return Ok(reader);
            }
            StreamItem::Reset(reason) => return Err(reason),
            _ => {}
        }
    }
}

/// From the connection to the guest.
async fn download(
    mut from: impl AsyncRead + Unpin,
    writer: &StreamWriter,
    traffic: &Traffic,
) -> Result<(), String> {
    let mut buffer = vec![0; MAX_DATA];
    loop {
        let len = from.read(&mut buffer).await.map_err(|e| e.to_string())?;
        if len == 0 {
            return writer.eof(CHANNEL).await.map_err(|e| e.to_string());
        }
        let bytes = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
        writer.data(CHANNEL, bytes).await.map_err(|e| e.to_string())?;
        traffic.down.fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
    }
}
