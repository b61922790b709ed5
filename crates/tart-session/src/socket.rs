//! A person's websocket and a shell, joined.

use std::time::Duration;

use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::frames::{Codec, Control, Said};
use crate::session::Connected;
use crate::terminal::{TerminalInput, TerminalOutput};

/// Largest frame of a client, in bytes.
const MAX_FRAME: usize = 64 << 10;

/// How often a client is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long it may say nothing, not even that it is there.
const SILENCE_LIMIT: Duration = Duration::from_secs(90);

/// How long the last word may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Longest reason of a close frame, in bytes (RFC 6455, 5.5).
const MAX_REASON: usize = 123;

/// Carries bytes both ways until either end is over, or the session is.
pub(crate) async fn join<S>(
    stream: S,
    codec: Codec,
    mut terminal: Box<dyn TerminalOutput>,
    mut connected: Connected,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let config = WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (mut sink, source) = socket.split();
    let input = terminal.input();
    // Neither direction waits for the other: a shell may stop reading until what it prints is taken.
    let reason = tokio::select! {
        reason = read(source, codec, &*input) => reason,
        reason = write(&mut sink, codec, &mut *terminal) => reason,
        reason = connected.ended() => Some((CloseCode::Normal, reason)),
    };
    if let Some((code, mut reason)) = reason {
        let end = (0..=MAX_REASON.min(reason.len())).rfind(|&end| reason.is_char_boundary(end));
        reason.truncate(end.unwrap_or(0));
        let frame = CloseFrame { code, reason: reason.into() };
        let _gone = timeout(CLOSE_LIMIT, sink.send(Message::Close(Some(frame)))).await;
    }
    // The shell ends before the place of the connection is free.
    drop(terminal);
    drop(connected);
}

/// Why the server ends a connection; `None` if the client did.
type End = Option<(CloseCode, String)>;

async fn read<S>(mut source: S, codec: Codec, input: &dyn TerminalInput) -> End
where
    S: Stream<Item = Result<Message, Error>> + Unpin,
{
    loop {
        let message = match timeout(SILENCE_LIMIT, source.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(Error::Capacity(_)))) => {
                return Some((CloseCode::Size, format!("a frame is longer than {MAX_FRAME} bytes")));
            }
            Ok(Some(Err(_)) | None) => return None,
            Err(_) => return Some((CloseCode::Away, "the client says nothing".to_owned())),
        };
        match codec.read(message) {
            Said::Bytes(bytes) => input.write(bytes).await,
            Said::Control(Control::Resize { rows, cols }) => input.resize(rows, cols).await,
            Said::Nothing => {}
            Said::End => return None,
            Said::Nonsense(problem) => return Some((CloseCode::Unsupported, problem.to_owned())),
        }
    }
}

async fn write<S>(sink: &mut S, codec: Codec, terminal: &mut dyn TerminalOutput) -> End
where
    S: Sink<Message, Error = Error> + Unpin,
{
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    loop {
        let message = tokio::select! {
            output = terminal.next() => match output {
                Some(bytes) => codec.write(bytes),
                None => return Some((CloseCode::Normal, "the shell has ended".to_owned())),
            },
            _ = pings.tick() => Message::Ping(bytes::Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return None;
        }
    }
}
