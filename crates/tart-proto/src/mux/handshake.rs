//! The start of a session, before there are streams.

use std::time::Duration;

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::MuxError;
use crate::{
    frame::{Decoder, Item, Preamble},
    limits::VERSION,
};

/// How long the host waits for an answer before it says its preamble again: a guest that was cut off in the middle
/// of a frame takes the first one for a part of it.
const AGAIN: Duration = Duration::from_secs(2);

/// Bytes to read at once.
const READ: usize = 4096;

/// The host's side: sends a preamble with a random token, skips what is left of earlier sessions, and waits for the
/// answer. It waits for as long as the guest takes to boot, so the caller limits it.
///
/// # Errors
/// If the connection ends, no answer is among the first megabyte, or the guest speaks another version.
pub async fn handshake_host<R, W>(reader: &mut R, writer: &mut W) -> Result<Decoder, MuxError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(std::io::Error::other)?;
    send(writer, &Preamble::new(token)).await?;
    let mut decoder = Decoder::new();
    loop {
        if let Some(preamble) = decoder.find_answer(&token)? {
            check(&preamble)?;
            return Ok(decoder);
        }
        match timeout(AGAIN, read(reader, &mut decoder)).await {
            Ok(read) => read?,
            Err(_) => send(writer, &Preamble::new(token)).await?,
        }
    }
}

/// The guest's side: skips everything before the host's preamble, and answers it. It waits for as long as there is
/// no host.
///
/// # Errors
/// If the connection ends, no preamble is among the first megabyte, or the host speaks another version.
pub async fn handshake_guest<R, W>(reader: &mut R, writer: &mut W) -> Result<Decoder, MuxError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut decoder = Decoder::new();
    loop {
        match decoder.next_item()? {
            Some(Item::Preamble(preamble)) => {
                reply(writer, &preamble).await?;
                return Ok(decoder);
            }
            Some(Item::Frame(_)) => {
                return Err(MuxError::Protocol("a frame before the start of the session"));
            }
            None => read(reader, &mut decoder).await?,
        }
    }
}

/// The guest's side when the preamble is already there, because it ended the session before with
/// [`MuxError::NewSession`].
///
/// # Errors
/// If the connection ends, or the host speaks another version.
pub async fn answer<W>(writer: &mut W, preamble: &Preamble) -> Result<Decoder, MuxError>
where
    W: AsyncWrite + Unpin,
{
    reply(writer, preamble).await?;
    Ok(Decoder::of_session(preamble))
}

async fn reply<W: AsyncWrite + Unpin>(writer: &mut W, preamble: &Preamble) -> Result<(), MuxError> {
    // Also to another version, whose host learns so what this is.
    send(writer, &Preamble::new(preamble.token)).await?;
    check(preamble)
}

fn check(preamble: &Preamble) -> Result<(), MuxError> {
    if preamble.version == VERSION { Ok(()) } else { Err(MuxError::Version { theirs: preamble.version }) }
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, preamble: &Preamble) -> Result<(), MuxError> {
    let mut bytes = BytesMut::new();
    preamble.encode(&mut bytes);
    writer.write_all(&bytes).await?;
    Ok(writer.flush().await?)
}

async fn read<R: AsyncRead + Unpin>(reader: &mut R, decoder: &mut Decoder) -> Result<(), MuxError> {
    let buffer = decoder.buffer_mut();
    buffer.reserve(READ);
    if reader.read_buf(buffer).await? == 0 { Err(MuxError::Closed) } else { Ok(()) }
}
