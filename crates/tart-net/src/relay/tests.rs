use std::{net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use tart_proto::{
    Mux, Role, Stream, StreamItem, StreamReader, StreamWriter,
    message::{CHANNEL_STDIN as CHANNEL, GuestOpen, decode, encode},
    mux,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;
use crate::{Allowed, Endpoint, StreamService};

/// A guest whose agent opens streams, and the host that serves them.
struct Guest {
    mux: Mux,
    _host: JoinSet<()>,
}

impl Guest {
    async fn start(relay: Arc<dyn RelayTargets>) -> Self {
        let (near, far) = duplex(64 * 1024);
        let ((mut host_reader, mut host_writer), (mut reader, mut writer)) = (split(near), split(far));
        let (host, guest) = tokio::join!(
            mux::handshake_host(&mut host_reader, &mut host_writer),
            mux::handshake_guest(&mut reader, &mut writer),
        );
        let (mux, _) = Mux::start(reader, writer, Role::Guest, guest.unwrap());
        let (host_mux, mut incoming) = Mux::start(host_reader, host_writer, Role::Host, host.unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _alive = host_mux;
            let mut connections = JoinSet::new();
            while let Some((payload, stream)) = incoming.next().await {
                let Ok(GuestOpen::Connect { forward }) = decode(&payload) else { panic!("no connection") };
                let relay = relay.clone();
                connections.spawn(async move { relay.serve(forward, stream).await });
            }
        });
        Self { mux, _host: tasks }
    }

    async fn connect(&self, forward: u32) -> Stream {
        self.mux.open(encode(&GuestOpen::Connect { forward }).unwrap()).await.unwrap()
    }
}

/// A listener on the loopback, and the relay to it alone.
async fn listening(options: RelayOptions) -> (TcpListener, Box<dyn Attachment>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let allowed = Allowed::direct(Endpoint::new("127.0.0.1", port).unwrap());
    (listener, attach(options, allowed).await)
}

async fn attach(options: RelayOptions, allowed: Allowed) -> Box<dyn Attachment> {
    let request = AttachRequest { allowed: vec![allowed], ..AttachRequest::default() };
    RelayNetwork::new(options).attach(&request).await.unwrap()
}

async fn send(writer: &StreamWriter, bytes: &[u8]) {
    for chunk in bytes.chunks(tart_proto::limits::MAX_DATA) {
        writer.data(CHANNEL, Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    writer.eof(CHANNEL).await.unwrap();
}

/// Everything until the end, or the reason of a reset.
async fn receive(reader: &mut StreamReader) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    loop {
        match reader.next().await {
            StreamItem::Data { bytes, .. } => all.extend(bytes),
            StreamItem::Eof { .. } | StreamItem::Closed => return Ok(all),
            StreamItem::Reset(reason) => return Err(reason),
            StreamItem::Message(_) => panic!("a message"),
        }
    }
}

/// Reads to the end, then answers with all of it.
async fn echo_at_end(mut connection: TcpStream) {
    let mut all = Vec::new();
    connection.read_to_end(&mut all).await.unwrap();
    connection.write_all(&all).await.unwrap();
}

#[tokio::test]
async fn each_way_has_its_own_end_and_all_bytes_arrive() {
    let (listener, attachment) = listening(RelayOptions::default()).await;
    let guest = Guest::start(attachment.relay()).await;
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (mut reader, writer) = guest.connect(0).await.split();
    let ((), received, ()) = tokio::join!(send(&writer, &bytes), receive(&mut reader), async {
        echo_at_end(listener.accept().await.unwrap().0).await;
    });
    assert!(received.unwrap() == bytes);
    writer.close().await.unwrap();
    assert!(matches!(reader.next().await, StreamItem::Closed));
    let len = u64::try_from(bytes.len()).unwrap();
    let counters = Counters { connections: 1, refused: 0, bytes_up: len, bytes_down: len };
    assert_eq!(attachment.usage().await.counters, counters);
}

#[tokio::test]
async fn a_connection_to_nowhere_is_reset() {
    let (_listener, attachment) = listening(RelayOptions::default()).await;
    let guest = Guest::start(attachment.relay()).await;
    for forward in [1, u32::MAX] {
        let (mut reader, _writer) = guest.connect(forward).await.split();
        assert_eq!(receive(&mut reader).await.unwrap_err(), "nothing is forwarded here");
    }
    assert_eq!(attachment.usage().await.counters.refused, 2);
}

#[tokio::test]
async fn a_refused_connection_tells_the_guest() {
    let (listener, attachment) = listening(RelayOptions::default()).await;
    drop(listener);
    let guest = Guest::start(attachment.relay()).await;
    let (mut reader, _writer) = guest.connect(0).await.split();
    let reason = receive(&mut reader).await.unwrap_err();
    assert!(reason.starts_with("cannot connect to 127.0.0.1:"), "{reason}");
}

#[tokio::test]
async fn connections_over_the_limit_are_reset() {
    let (listener, attachment) =
        listening(RelayOptions { max_connections: 1, ..RelayOptions::default() }).await;
    let guest = Guest::start(attachment.relay()).await;
    let (_first_reader, _first) = guest.connect(0).await.split();
    let _connection = listener.accept().await.unwrap();
    let (mut reader, _writer) = guest.connect(0).await.split();
    assert_eq!(receive(&mut reader).await.unwrap_err(), "too many connections");
}

#[tokio::test]
async fn an_answer_arrives_though_the_server_reads_nothing() {
    let service = Allowed::service("sources.tart.internal:80".parse().unwrap(), Arc::new(Refuse));
    let attachment = attach(RelayOptions::default(), service).await;
    let guest = Guest::start(attachment.relay()).await;
    let (mut reader, writer) = guest.connect(0).await.split();
    // More than is buffered on the way, so that it only arrives if it is taken off the guest's hands.
    let bytes = vec![0; 8 << 20];
    let ((), received) = tokio::join!(send(&writer, &bytes), receive(&mut reader));
    assert_eq!(received.unwrap(), b"no");
}

#[tokio::test]
async fn a_reset_by_the_guest_ends_the_hosts_connection() {
    let (listener, attachment) = listening(RelayOptions::default()).await;
    let guest = Guest::start(attachment.relay()).await;
    let (_reader, writer) = guest.connect(0).await.split();
    let (mut connection, _) = listener.accept().await.unwrap();
    // Half closed first: the guest must still be heard.
    writer.eof(CHANNEL).await.unwrap();
    assert_eq!(connection.read(&mut [0; 1]).await.unwrap(), 0);
    writer.reset("gone");
    // Of the guest's reset, the server sees an end only when it writes; the relay has dropped the connection then.
    while connection.write_all(&[0; 4096]).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn detaching_ends_every_connection() {
    let (listener, attachment) = listening(RelayOptions::default()).await;
    let guest = Guest::start(attachment.relay()).await;
    let (mut reader, _writer) = guest.connect(0).await.split();
    let (mut connection, _) = listener.accept().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), attachment.detach()).await.unwrap();
    assert_eq!(connection.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(receive(&mut reader).await.is_err());
    let (mut late, _writer) = guest.connect(0).await.split();
    assert!(receive(&mut late).await.is_err());
}

struct Shout;

#[async_trait]
impl StreamService for Shout {
    async fn serve(&self, mut connection: DuplexStream) {
        let mut text = String::new();
        if connection.read_to_string(&mut text).await.is_ok() {
            let _gone = connection.write_all(text.to_uppercase().as_bytes()).await;
        }
    }
}

/// Answers without having read anything.
struct Refuse;

#[async_trait]
impl StreamService for Refuse {
    async fn serve(&self, mut connection: DuplexStream) {
        connection.write_all(b"no").await.unwrap();
    }
}

#[tokio::test]
async fn a_service_of_this_process_needs_no_socket() {
    let service = Allowed::service("sources.tart.internal:80".parse().unwrap(), Arc::new(Shout));
    let attachment = attach(RelayOptions::default(), service).await;
    let guest = Guest::start(attachment.relay()).await;
    let (mut reader, writer) = guest.connect(0).await.split();
    let ((), received) = tokio::join!(send(&writer, b"hello"), receive(&mut reader));
    assert_eq!(received.unwrap(), b"HELLO");
}

#[tokio::test]
async fn without_a_network_only_services_are_reached() {
    let services = vec![
        Allowed::direct("gitlab.example.com:443".parse().unwrap()),
        Allowed::service("sources.tart.internal:80".parse().unwrap(), Arc::new(Shout)),
    ];
    let request = AttachRequest { allowed: services, ..AttachRequest::default() };
    let attachment = crate::NoNetwork.attach(&request).await.unwrap();
    let hosts: Vec<_> = attachment.guest().hosts.iter().flat_map(|(_, names)| names).collect();
    assert_eq!(hosts, ["sources.tart.internal"]);
    assert!(attachment.guest().nic.is_none());
}
