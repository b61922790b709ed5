use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use super::*;
use crate::{
    frame::{Frame, FrameKind, Item, Preamble},
    limits::{INITIAL_CREDIT, MAX_DATA, MAX_PEER_STREAMS, MAX_PENDING_MESSAGES},
};

mod hostile;
mod shaking;

/// Limit of what should take a moment.
const LIMIT: Duration = Duration::from_secs(60);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it took too long")
}

type Halves = (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>);

/// A pipe both ways that holds little, as a virtio port.
fn pipe() -> (Halves, Halves) {
    let (ours, theirs) = tokio::io::duplex(4096);
    (tokio::io::split(ours), tokio::io::split(theirs))
}

fn pair() -> ((Mux, Incoming), (Mux, Incoming)) {
    let (ours, theirs) = pipe();
    let host = Mux::start(ours.0, ours.1, Role::Host, Decoder::in_session());
    let guest = Mux::start(theirs.0, theirs.1, Role::Guest, Decoder::in_session());
    (host, guest)
}

async fn stream(opener: &Mux, incoming: &mut Incoming) -> (Stream, Stream) {
    let ours = opener.open(Bytes::from_static(b"request")).await.unwrap();
    let (payload, theirs) = within(incoming.next()).await.unwrap();
    assert_eq!((payload, ours.id()), (Bytes::from_static(b"request"), theirs.id()));
    (ours, theirs)
}

async fn read_all(reader: &mut StreamReader) -> usize {
    let mut total = 0;
    loop {
        match within(reader.next()).await {
            StreamItem::Data { bytes, .. } => total += bytes.len(),
            StreamItem::Eof { .. } => return total,
            item => panic!("unexpected {item:?}"),
        }
    }
}

#[tokio::test]
async fn both_ends_open_streams_and_items_keep_their_order() {
    let ((host, mut host_incoming), (guest, mut guest_incoming)) = pair();
    let (ours, theirs) = stream(&host, &mut guest_incoming).await;
    assert_eq!(ours.id(), 1);
    let (_, to_guest) = ours.split();
    let (mut from_host, _to_host) = theirs.split();
    to_guest.data(3, Bytes::from_static(b"data")).await.unwrap();
    to_guest.message(Bytes::from_static(b"message")).await.unwrap();
    to_guest.eof(3).await.unwrap();
    to_guest.eof(3).await.unwrap();
    assert!(matches!(to_guest.data(3, Bytes::from_static(b"late")).await, Err(MuxError::StreamClosed)));
    to_guest.close().await.unwrap();
    assert_eq!(
        within(from_host.next()).await,
        StreamItem::Data { channel: 3, bytes: Bytes::from_static(b"data") }
    );
    assert_eq!(within(from_host.next()).await, StreamItem::Message(Bytes::from_static(b"message")));
    assert_eq!(within(from_host.next()).await, StreamItem::Eof { channel: 3 });
    assert_eq!(within(from_host.next()).await, StreamItem::Closed);
    assert_eq!(within(from_host.next()).await, StreamItem::Closed);
    let (ours, _theirs) = stream(&guest, &mut host_incoming).await;
    assert_eq!(ours.id(), crate::message::HELLO_STREAM);
}

#[tokio::test]
async fn a_writer_waits_for_its_reader_and_holds_up_nobody_else() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let (slow, slow_end) = stream(&host, &mut incoming).await;
    let (quick, quick_end) = stream(&host, &mut incoming).await;
    let total = 4 * INITIAL_CREDIT as usize;
    let slow_writer = slow.split().1;
    let writing = tokio::spawn(async move {
        slow_writer.data(0, vec![1; total].into()).await.unwrap();
        slow_writer.eof(0).await.unwrap();
        slow_writer.close().await.unwrap();
    });
    let (mut quick_reader, _quick_back) = quick_end.split();
    let quick_writer = quick.split().1;
    let send = async {
        quick_writer.data(0, vec![2; total].into()).await.unwrap();
        quick_writer.eof(0).await.unwrap();
    };
    let (read, ()) = tokio::join!(read_all(&mut quick_reader), send);
    assert_eq!(read, total);
    assert!(!writing.is_finished());
    let (mut slow_reader, _slow_back) = slow_end.split();
    assert_eq!(read_all(&mut slow_reader).await, total);
    within(writing).await.unwrap();
}

#[tokio::test]
async fn a_message_does_not_wait_behind_the_bulk_of_other_streams() {
    let (ours, mut theirs) = pipe();
    let (host, _incoming) = Mux::start(ours.0, ours.1, Role::Host, Decoder::in_session());
    let mut bulk = Vec::new();
    for _ in 0..20 {
        let writer = host.open(Bytes::new()).await.unwrap().split().1;
        bulk.push(tokio::spawn(async move { writer.data(0, vec![0; MAX_DATA * 8].into()).await }));
    }
    let control = host.open(Bytes::new()).await.unwrap();
    tokio::task::yield_now().await;
    let id = control.id();
    let (_reader, writer) = control.split();
    writer.message(Bytes::from_static(b"cancel")).await.unwrap();
    let mut decoder = Decoder::in_session();
    let mut data = 0;
    'read: loop {
        while let Some(Item::Frame(frame)) = decoder.next_item().unwrap() {
            match frame.kind {
                FrameKind::Message if frame.stream == id => break 'read,
                FrameKind::Data => data += 1,
                _ => {}
            }
        }
        within(theirs.0.read_buf(decoder.buffer_mut())).await.unwrap();
    }
    assert!(data <= 3, "{data} data frames came first");
    for task in bulk {
        task.abort();
    }
}

#[tokio::test]
async fn data_on_credit_lets_messages_through_and_stops_the_writer() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let (ours, theirs) = stream(&host, &mut incoming).await;
    let (_back, writer) = ours.split();
    let (mut reader, _writer) = theirs.split();
    let input = writer.clone();
    let writing =
        tokio::spawn(async move { input.data(0, vec![0; 2 * INITIAL_CREDIT as usize].into()).await });
    let mut kept = Vec::new();
    for _ in 0..15 {
        match within(reader.next_on_credit()).await {
            StreamItem::Data { bytes, .. } => kept.push(bytes.len()),
            item => panic!("unexpected {item:?}"),
        }
    }
    assert_eq!(kept.iter().sum::<usize>(), 15 * MAX_DATA);
    writer.message(Bytes::from_static(b"control")).await.unwrap();
    assert_eq!(within(reader.next_on_credit()).await, StreamItem::Message(Bytes::from_static(b"control")));
    assert!(!writing.is_finished());
    kept.into_iter().for_each(|len| reader.consumed(len));
    while !writing.is_finished() {
        if let StreamItem::Data { bytes, .. } = within(reader.next_on_credit()).await {
            reader.consumed(bytes.len());
        }
    }
    within(writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_stream_is_reset() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let (ours, theirs) = stream(&host, &mut incoming).await;
    drop(ours);
    let (mut reader, writer) = theirs.split();
    assert!(matches!(within(reader.next()).await, StreamItem::Reset(_)));
    assert!(matches!(writer.message(Bytes::new()).await, Err(MuxError::Reset(_))));
    drop((reader, writer));
    // The stream that was dropped before the peer had taken it is not offered.
    drop(host.open(Bytes::from_static(b"gone")).await.unwrap());
    let (_ours, _theirs) = stream(&host, &mut incoming).await;
}

#[tokio::test]
async fn an_owner_that_answers_and_leaves_stops_the_peers_writer() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let (ours, theirs) = stream(&host, &mut incoming).await;
    let (mut reader, writer) = ours.split();
    let writing =
        tokio::spawn(async move { writer.data(0, vec![0; 8 * INITIAL_CREDIT as usize].into()).await });
    {
        let (_unread, answer) = theirs.split();
        answer.message(Bytes::from_static(b"refused")).await.unwrap();
        answer.close().await.unwrap();
    }
    assert!(matches!(within(writing).await.unwrap(), Err(MuxError::Reset(_))));
    assert_eq!(within(reader.next()).await, StreamItem::Message(Bytes::from_static(b"refused")));
    assert_eq!(within(reader.next()).await, StreamItem::Closed);
}

#[tokio::test]
async fn a_dropped_reader_leaves_the_other_direction_alone() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let (ours, theirs) = stream(&host, &mut incoming).await;
    let (reader, writer) = ours.split();
    drop(reader);
    let (mut from_host, _kept) = theirs.split();
    let send = async {
        writer.data(0, vec![0; 3 * INITIAL_CREDIT as usize].into()).await.unwrap();
        writer.eof(0).await.unwrap();
    };
    let (read, ()) = within(async { tokio::join!(read_all(&mut from_host), send) }).await;
    assert_eq!(read, 3 * INITIAL_CREDIT as usize);
}

#[tokio::test]
async fn a_stream_that_ended_well_before_it_was_taken_can_be_read() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    host.open(Bytes::from_static(b"hello")).await.unwrap().split().1.close().await.unwrap();
    within(host.ping()).await.unwrap();
    let (payload, stream) = within(incoming.next()).await.unwrap();
    assert_eq!(payload, Bytes::from_static(b"hello"));
    assert_eq!(within(stream.split().0.next()).await, StreamItem::Closed);
}

#[tokio::test]
async fn streams_come_and_go_without_end() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    for round in 0..3 * MAX_PEER_STREAMS {
        let (ours, theirs) = stream(&host, &mut incoming).await;
        match round % 3 {
            0 => drop((ours, theirs)),
            1 => drop((theirs, ours)),
            _ => {
                let ((mut ours, our_end), (mut theirs, their_end)) = (ours.split(), theirs.split());
                our_end.close().await.unwrap();
                their_end.close().await.unwrap();
                assert_eq!(within(ours.next()).await, StreamItem::Closed);
                assert_eq!(within(theirs.next()).await, StreamItem::Closed);
            }
        }
        within(host.ping()).await.unwrap();
    }
    let left = host.connection.shared.lock().len();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_limit_of_streams_is_kept_by_the_opener() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let mut streams = Vec::new();
    for _ in 0..MAX_PEER_STREAMS {
        streams.push(stream(&host, &mut incoming).await);
    }
    assert!(matches!(host.open(Bytes::new()).await, Err(MuxError::TooManyStreams)));
    streams.pop();
    within(host.ping()).await.unwrap();
    within(host.ping()).await.unwrap();
    streams.push(stream(&host, &mut incoming).await);
}

#[tokio::test]
async fn without_anybody_to_take_streams_they_are_refused() {
    let ((host, _host_incoming), (guest, incoming)) = pair();
    let before = host.open(Bytes::new()).await.unwrap();
    within(host.ping()).await.unwrap();
    drop(incoming);
    for stream in [before, host.open(Bytes::new()).await.unwrap()] {
        assert!(matches!(within(stream.split().0.next()).await, StreamItem::Reset(_)));
    }
    within(guest.ping()).await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_connection_wakes_everybody() {
    let ((host, mut host_incoming), guest) = pair();
    let stream = host.open(Bytes::new()).await.unwrap();
    let (mut reader, writer) = stream.split();
    let writing =
        tokio::spawn(async move { writer.data(0, vec![0; 8 * INITIAL_CREDIT as usize].into()).await });
    let pinging = tokio::spawn({
        let host = host.clone();
        async move { while host.ping().await.is_ok() {} }
    });
    tokio::task::yield_now().await;
    drop(guest);
    assert!(matches!(within(host.closed()).await, MuxError::Closed));
    assert!(matches!(within(reader.next()).await, StreamItem::Reset(_)));
    assert!(within(writing).await.unwrap().is_err());
    within(pinging).await.unwrap();
    assert!(within(host_incoming.next()).await.is_none());
    assert!(matches!(host.open(Bytes::new()).await, Err(MuxError::Closed)));
}

#[tokio::test]
async fn the_last_handle_ends_the_connection_and_not_an_earlier_one() {
    let ((host, host_incoming), (guest, mut incoming)) = pair();
    let (ours, theirs) = stream(&host, &mut incoming).await;
    drop((host, host_incoming));
    let (_reader, writer) = ours.split();
    let (mut reader, _writer) = theirs.split();
    writer.message(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(within(reader.next()).await, StreamItem::Message(Bytes::from_static(b"still here")));
    drop((_reader, writer));
    assert!(matches!(within(guest.closed()).await, MuxError::Closed));
}

#[tokio::test]
async fn an_aborted_connection_ends_for_its_reason() {
    let ((host, _host_incoming), (guest, _incoming)) = pair();
    host.abort(MuxError::Protocol("nonsense"));
    assert!(matches!(within(host.closed()).await, MuxError::Protocol("nonsense")));
    assert!(matches!(within(guest.closed()).await, MuxError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lot_of_data_goes_both_ways_on_many_streams_at_once() {
    const EACH: usize = 4 * 1024 * 1024;
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (ours, theirs) = stream(&host, &mut incoming).await;
        for (mut reader, writer) in [ours.split(), theirs.split()] {
            tasks.spawn(async move {
                writer.data(1, vec![7; EACH].into()).await.unwrap();
                writer.eof(1).await.unwrap();
                // The other end may have read it all and left.
                let _left = writer.close().await;
                0
            });
            tasks.spawn(async move { read_all(&mut reader).await });
        }
    }
    let mut total = 0;
    while let Some(read) = within(tasks.join_next()).await {
        total += read.unwrap();
    }
    assert_eq!(total, 32 * EACH);
}
