//! One session with the host: answers its requests until the connection ends.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tart_proto::{
    Incoming, Mux, MuxError, Stream, StreamItem, StreamReader, StreamWriter,
    message::{Failure, GuestEvent, GuestOpen, HostOpen, decode, encode},
    time::scaled,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    clock, console, entropy, exec, failure, files, forward, machine::Machine, mounts, network, shutdown,
    stats,
};

/// How long the host may take to see that a shutdown is done before the machine is gone.
const FAREWELL: Duration = Duration::from_millis(500);

/// Connections that jobs may have open to the host at once; more wait. Below what the host takes, because it ends
/// a session that goes over.
const MAX_FORWARDED: usize = tart_proto::limits::MAX_PEER_STREAMS / 2;

/// Why encoding what the agent says cannot fail.
const FITS: &str = "every text that the agent sends is bounded far below the size of a message";

/// Why a session is over.
#[derive(Debug)]
pub enum End {
    /// The connection ended; commands of the session are killed.
    Connection(MuxError),
    /// The host asked for the machine to be reset; everything is stopped and synced.
    Shutdown,
}

/// What the requests of a session share.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) machine: Arc<Machine>,
    pub(crate) mux: Mux,
    /// Bounds the streams that the guest opens.
    pub(crate) forwarded: Arc<Semaphore>,
    shutdown: mpsc::Sender<()>,
}

/// Greets the host, then serves its requests until the connection ends or it asks for a shutdown. Commands that
/// still run then are killed.
pub async fn serve(machine: &Arc<Machine>, mux: Mux, mut incoming: Incoming) -> End {
    let (shutdown, mut shutdown_asked) = mpsc::channel(1);
    let forwarded = Arc::new(Semaphore::new(MAX_FORWARDED));
    let session = Arc::new(Session { machine: machine.clone(), mux, forwarded, shutdown });
    let mut requests = JoinSet::new();
    requests.spawn(greet(session.clone()));
    let end = loop {
        tokio::select! {
            opened = incoming.next() => match opened {
                Some((payload, stream)) => drop(requests.spawn(answer(session.clone(), payload, stream))),
                None => break End::Connection(session.mux.closed().await),
            },
            Some(_) = shutdown_asked.recv() => break End::Shutdown,
            Some(_) = requests.join_next(), if !requests.is_empty() => {}
        }
    };
    requests.shutdown().await;
    machine.cgroups.kill_all();
    end
}

async fn greet(session: Arc<Session>) {
    let hello = GuestOpen::Hello(session.machine.hello());
    let greeted = async {
        let stream = open(&session.mux, &hello).await?;
        stream.split().1.close().await
    };
    report("greeting", greeted.await);
}

/// Answers one request.
async fn answer(session: Arc<Session>, payload: Bytes, stream: Stream) {
    let (mut reader, writer) = stream.split();
    let request = match decode::<HostOpen>(&payload) {
        Ok(request) => request,
        Err(error) => {
            let failed = Err(failure::invalid(format!("malformed request: {error}")));
            return report("request", finish(writer, failed).await);
        }
    };
    let machine = &session.machine;
    let answered = match request {
        HostOpen::Configure(configure) => finish(writer, network::configure(machine, &configure).await).await,
        HostOpen::Mount(steps) => finish(writer, mounts::make(machine, &steps).await).await,
        HostOpen::ServiceNetwork(request) => {
            finish(writer, network::make_services(machine, &request).await).await
        }
        HostOpen::AwaitPort { address } => {
            tokio::select! {
                () = network::await_port(address) => finish(writer, Ok(())).await,
                () = until_closed(&mut reader) => writer.close().await,
            }
        }
        HostOpen::Exec(exec) => exec::command::run(machine, &exec, reader, writer).await,
        HostOpen::PutFile(file) => match files::put(machine, &file, &mut reader).await {
            Ok(result) => finish(writer, result).await,
            Err(error) => Err(error),
        },
        HostOpen::GetFile(file) => match files::get(machine, &file, &writer).await {
            Ok(result) => finish(writer, result).await,
            Err(error) => Err(error),
        },
        HostOpen::Listen(listen) => forward::listen(&session, &listen, reader, writer).await,
        HostOpen::SetTime { unix_nanos } => finish(writer, clock::set(unix_nanos)).await,
        HostOpen::Reseed { entropy } => finish(writer, entropy::reseed(&entropy)).await,
        HostOpen::Stats => conclude(writer, &GuestEvent::Stats(stats::read(machine))).await,
        HostOpen::Shutdown => {
            shutdown::stop(machine).await;
            let finished = finish(writer, Ok(())).await;
            // The machine would be gone before the answer has left it.
            let _slow = tokio::time::timeout(scaled(FAREWELL), until_closed(&mut reader)).await;
            let _asked = session.shutdown.try_send(());
            finished
        }
    };
    report("request", answered);
}

async fn until_closed(reader: &mut StreamReader) {
    while !matches!(reader.next().await, StreamItem::Closed | StreamItem::Reset(_)) {}
}

/// A stream that the host broke off concerns the host; a connection that ended is reported by the session.
fn report(what: &str, result: Result<(), MuxError>) {
    if let Err(error) = result {
        console::say(format_args!("{what}: {error}"));
    }
}

/// Ends a request with its result.
pub(crate) async fn finish(writer: StreamWriter, result: Result<(), Failure>) -> Result<(), MuxError> {
    let event = match result {
        Ok(()) => GuestEvent::Done,
        Err(failure) => GuestEvent::Failed(failure),
    };
    conclude(writer, &event).await
}

async fn conclude(writer: StreamWriter, event: &GuestEvent) -> Result<(), MuxError> {
    send(&writer, event).await?;
    writer.close().await
}

/// Sends an event within a request.
pub(crate) async fn send(writer: &StreamWriter, event: &GuestEvent) -> Result<(), MuxError> {
    writer.message(encode(event).expect(FITS)).await
}

/// Opens a stream to the host.
pub(crate) async fn open(mux: &Mux, request: &GuestOpen) -> Result<Stream, MuxError> {
    mux.open(encode(request).expect(FITS)).await
}
