//! Copying between a guest's stream and a connection of the host.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tart_proto::{StreamItem, StreamReader, StreamWriter, limits::MAX_DATA, message::CHANNEL_STDIN};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a connection; the only channel of its stream.
const CHANNEL: u8 = CHANNEL_STDIN;

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
                Ok((reader, delivered)) => tokio::select! {
                    received = down => received.and(delivered),
                    gone = end(reader) => Err(gone),
                },
                Err(gone) => Err(gone),
            },
            result = &mut down => match result {
                Ok(()) => up.await.and_then(|(_, delivered)| delivered),
                Err(broken) => Err(broken),
            },
        }
    };
    match result {
        Ok(()) => drop(writer.close().await),
        Err(reason) => writer.reset(&reason),
    }
}

/// Waits until the guest closes or resets a stream on which it sends no more.
async fn end(mut reader: StreamReader) -> String {
    loop {
        match reader.next().await {
            StreamItem::Closed => return "the guest closed the connection".to_owned(),
            StreamItem::Reset(reason) => return reason,
            _ => {}
        }
    }
}

/// From the guest to the connection. The outer error is the guest's own reset; the inner one a connection that takes
/// no more, whose remaining input is read and dropped: it may still have an answer, which a guest that is blocked in
/// sending would never read.
async fn upload(
    mut reader: StreamReader,
    mut to: impl AsyncWrite + Unpin,
    traffic: &Traffic,
) -> Result<(StreamReader, Result<(), String>), String> {
    let mut delivered = Ok(());
    loop {
        match reader.next().await {
            StreamItem::Data { channel: CHANNEL, bytes } if delivered.is_ok() => {
                delivered = to.write_all(&bytes).await.map_err(|e| e.to_string());
                traffic.up.fetch_add(u64::try_from(bytes.len()).unwrap_or(0), Ordering::Relaxed);
            }
            StreamItem::Eof { channel: CHANNEL } | StreamItem::Closed => {
                if delivered.is_ok() {
                    delivered = to.shutdown().await.map_err(|e| e.to_string());
                }
                return Ok((reader, delivered));
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
