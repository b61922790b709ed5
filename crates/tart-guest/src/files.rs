//! File contents to and from the guest.

use bytes::BytesMut;
use tart_proto::{
    StreamItem, StreamWriter,
    limits::MAX_DATA,
    message::{CHANNEL_STDIN, GetFile, GuestEvent, HostOpen, PutFile},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    GuestError,
    request::{ANSWER_LIMIT, next_event, parse, unexpected, within},
    session::Session,
};

/// Channel of file contents.
const CHANNEL: u8 = CHANNEL_STDIN;

pub(crate) async fn put(
    session: &Session,
    file: &PutFile,
    contents: impl AsyncRead + Send + Unpin,
) -> Result<(), GuestError> {
    let (mut reader, writer) = session.open(&HostOpen::PutFile(file.clone())).await?.split();
    {
        let mut answer = std::pin::pin!(next_event(session, &mut reader));
        tokio::select! {
            biased;
            // A refused file is not taken to its end.
            early = &mut answer => {
                early?;
                return Err(session.violation("a file taken before its end"));
            }
            sent = upload(contents, &writer) => match sent {
                Ok(()) => {}
                Err(Upload::Local(error)) => return Err(error),
                // The guest says why.
                Err(Upload::Refused) => {
                    within("say why it refused a file", ANSWER_LIMIT, answer).await?;
                    return Err(session.violation("a file taken before its end"));
                }
            },
        }
    }
    match within("finish writing a file", ANSWER_LIMIT, next_event(session, &mut reader)).await? {
        GuestEvent::Done => Ok(()),
        _ => Err(session.violation("an answer that does not fit its request")),
    }
}

enum Upload {
    Local(GuestError),
    Refused,
}

async fn upload(mut contents: impl AsyncRead + Unpin, writer: &StreamWriter) -> Result<(), Upload> {
    loop {
        let mut buffer = BytesMut::with_capacity(MAX_DATA);
        match contents.read_buf(&mut buffer).await {
            Ok(0) => return writer.eof(CHANNEL).await.map_err(|_| Upload::Refused),
            Ok(_) => writer.data(CHANNEL, buffer.freeze()).await.map_err(|_| Upload::Refused)?,
            Err(error) => {
                return Err(Upload::Local(GuestError::local("read what goes to the guest", &error)));
            }
        }
    }
}

pub(crate) async fn get(
    session: &Session,
    file: &GetFile,
    mut to: impl AsyncWrite + Send + Unpin,
) -> Result<u64, GuestError> {
    let (mut reader, _writer) = session.open(&HostOpen::GetFile(file.clone())).await?.split();
    let cannot_write = |error| GuestError::local("keep what came from the guest", &error);
    let mut total = 0_u64;
    let mut ended = false;
    loop {
        match reader.next().await {
            StreamItem::Data { channel: CHANNEL, bytes } => {
                total = total.saturating_add(bytes.len() as u64);
                if total > file.max_bytes {
                    return Err(session.violation("a file larger than the limit of its request"));
                }
                to.write_all(&bytes).await.map_err(cannot_write)?;
            }
            StreamItem::Eof { channel: CHANNEL } => ended = true,
            StreamItem::Message(bytes) => match parse(session, &bytes)? {
                GuestEvent::Done if ended => {
                    to.flush().await.map_err(cannot_write)?;
                    return Ok(total);
                }
                _ => return Err(session.violation("an answer that does not fit its request")),
            },
            item => return Err(unexpected(session, item)),
        }
    }
}
