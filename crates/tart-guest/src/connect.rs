//! The start of a session.

use std::{sync::Arc, time::Duration};

use tart_proto::{
    Mux, Role,
    message::{GuestOpen, HELLO_STREAM, Hello, decode},
    mux,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{GuestError, Relay, session::Session, text};

pub(crate) async fn connect<S>(
    stream: S,
    relay: Arc<dyn Relay>,
    limit: Duration,
) -> Result<(Session, Hello), GuestError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match tokio::time::timeout(limit, greet(stream, relay)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(GuestError::Timeout { what: "come up", limit }),
    }
}

async fn greet<S>(stream: S, relay: Arc<dyn Relay>) -> Result<(Session, Hello), GuestError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let decoder = mux::handshake_host(&mut reader, &mut writer).await?;
    let (mux, mut incoming) = Mux::start(reader, writer, Role::Host, decoder);
    let Some((payload, stream)) = incoming.next().await else { return Err(mux.closed().await.into()) };
    let hello = match decode::<GuestOpen>(&payload) {
        Ok(GuestOpen::Hello(hello)) if stream.id() == HELLO_STREAM => hello,
        _ => return Err(GuestError::violation("it did not greet first")),
    };
    Ok((Session::start(mux, incoming, relay), plain(hello)))
}

fn plain(hello: Hello) -> Hello {
    Hello { agent_version: text::plain(&hello.agent_version), kernel: text::plain(&hello.kernel), ..hello }
}
