//! Listeners in the guest whose connections go to the host.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tart_proto::{
    MuxError, StreamItem, StreamReader, StreamWriter,
    limits::MAX_DATA,
    message::{CHANNEL_STDIN, Failure, GuestEvent, GuestOpen, Listen},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use crate::{
    console, failure, network,
    session::{self, Session},
};

/// Bytes of a connection; the only channel of its stream.
const CHANNEL: u8 = CHANNEL_STDIN;

/// Pause after a failed accept.
const RETRY: Duration = Duration::from_millis(100);

/// Serves one listener until the host closes its stream.
pub(crate) async fn listen(
    session: &Arc<Session>,
    request: &Listen,
    mut reader: StreamReader,
    writer: StreamWriter,
) -> Result<(), MuxError> {
    let listener = match bind(&request.address).await {
        Ok(listener) => listener,
        Err(failure) => return session::finish(writer, Err(failure)).await,
    };
    session::send(&writer, &GuestEvent::Done).await?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            item = reader.next() => match item {
                StreamItem::Closed | StreamItem::Reset(_) => return writer.close().await,
                _ => {}
            },
            accepted = accept(session, &listener) => match accepted {
                Ok((connection, permit)) => {
                    let (session, forward) = (session.clone(), request.forward);
                    connections.spawn(async move {
                        relay(&session, forward, connection).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    console::say(format_args!("listener on {}: {error}", request.address));
                    // Out of descriptors or memory: trying again at once would only burn time.
                    tokio::time::sleep(RETRY).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// The next connection, once there is room for one.
async fn accept(
    session: &Session,
    listener: &TcpListener,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = session.forwarded.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (connection, _peer) = listener.accept().await?;
    Ok((connection, permit))
}

async fn bind(address: &str) -> Result<TcpListener, Failure> {
    let address: SocketAddr = address
        .parse()
        .map_err(|_| failure::invalid(format!("`{address}` is no address with a port to listen on")))?;
    let failed = |e| failure::system(format!("cannot listen on {address}"), e);
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            add_to_loopback(address.ip())?;
            TcpListener::bind(address).await.map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

fn add_to_loopback(address: IpAddr) -> Result<(), Failure> {
    network::add_loopback_address(address)
        .map_err(|e| failure::system(format!("cannot add {address} to the loopback"), e))
}

/// Copies both ways between a connection and a new stream to the host, each way until its own end.
async fn relay(session: &Session, forward: u32, connection: TcpStream) {
    // Small messages of a request and its answer must not wait for each other; it fails only on a dead connection.
    let _dead = connection.set_nodelay(true);
    let open = session::open(&session.mux, &GuestOpen::Connect { forward }).await;
    let Ok(stream) = open else { return };
    let (reader, writer) = stream.split();
    let (from, to) = connection.into_split();
    let result = tokio::try_join!(upload(from, &writer), download(reader, to));
    match result {
        Ok(_) => {
            let _gone = writer.close().await;
        }
        Err(reason) => writer.reset(&reason),
    }
}

async fn upload(mut from: OwnedReadHalf, writer: &StreamWriter) -> Result<(), String> {
    let mut buffer = vec![0; MAX_DATA];
    loop {
        let len = from.read(&mut buffer).await.map_err(|e| e.to_string())?;
        if len == 0 {
            return writer.eof(CHANNEL).await.map_err(|e| e.to_string());
        }
        let bytes = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
        writer.data(CHANNEL, bytes).await.map_err(|e| e.to_string())?;
    }
}

async fn download(mut reader: StreamReader, mut to: OwnedWriteHalf) -> Result<(), String> {
    loop {
        match reader.next().await {
            StreamItem::Data { channel: CHANNEL, bytes } => {
                to.write_all(&bytes).await.map_err(|e| e.to_string())?;
            }
            StreamItem::Eof { channel: CHANNEL } | StreamItem::Closed => {
                return to.shutdown().await.map_err(|e| e.to_string());
            }
            StreamItem::Reset(reason) => return Err(reason),
            _ => {}
        }
    }
}
