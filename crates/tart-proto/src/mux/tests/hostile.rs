//! Peers that break rules, and what they can make this end keep.

use bytes::BytesMut;

use super::*;
use crate::limits::{MAX_MESSAGE, data_cost};

/// What a host makes of raw bytes of its guest, which then ends.
async fn host_sees(bytes: &[u8]) -> MuxError {
    let (ours, (mut from_host, mut to_host)) = pipe();
    let (host, _incoming) = Mux::start(ours.0, ours.1, Role::Host, Decoder::in_session());
    let drain = tokio::spawn(async move {
        let mut sink = Vec::new();
        let _end = from_host.read_to_end(&mut sink).await;
    });
    let _refused = within(to_host.write_all(bytes)).await;
    let _gone = to_host.shutdown().await;
    let end = within(host.closed()).await;
    drain.abort();
    end
}

fn encode(frames: impl IntoIterator<Item = Frame>) -> BytesMut {
    let mut bytes = BytesMut::new();
    frames.into_iter().for_each(|frame| frame.encode(&mut bytes).unwrap());
    bytes
}

fn frame(kind: FrameKind, stream: u32, payload: impl Into<Bytes>) -> Frame {
    Frame::new(kind, stream, payload)
}

fn open(stream: u32) -> Frame {
    frame(FrameKind::Open, stream, Bytes::from_static(b"x"))
}

async fn breach(frames: impl IntoIterator<Item = Frame>) -> &'static str {
    match host_sees(&encode(frames)).await {
        MuxError::Protocol(what) => what,
        error => panic!("unexpected {error:?}"),
    }
}

#[tokio::test]
async fn rules_of_streams_are_enforced() {
    let not_next = "a stream opened with an id that is not the peer's next";
    assert_eq!(breach([open(1)]).await, not_next);
    assert_eq!(breach([open(0)]).await, not_next);
    assert_eq!(breach([open(2), open(2)]).await, not_next);
    assert_eq!(breach([open(4), open(2)]).await, not_next);
    for stream in [0, 1, 4] {
        let frames = [open(2), frame(FrameKind::Close, stream, Bytes::new())];
        assert_eq!(breach(frames).await, "a frame of a stream that was never opened", "{stream}");
    }
    let close = || frame(FrameKind::Close, 2, Bytes::new());
    assert_eq!(breach([open(2), close(), close()]).await, "a frame of a stream after its close");
    let eof = || frame(FrameKind::Eof, 2, vec![200]);
    assert_eq!(breach([open(2), eof(), eof()]).await, "a channel that ended twice");
    let data = frame(FrameKind::Data, 2, vec![200, 1]);
    assert_eq!(breach([open(2), eof(), data]).await, "data of a channel after its end");
    let credit = frame(FrameKind::Credit, 2, 1_u32.to_le_bytes().to_vec());
    assert_eq!(breach([open(2), credit]).await, "more credit than was spent");
    let pong = frame(FrameKind::Pong, 0, vec![1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(breach([pong]).await, "an answer to a ping that was never sent");
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    assert!(matches!(host_sees(b"\xff\xff\xff\x7f").await, MuxError::Frame(_)));
    assert!(matches!(host_sees(&[6, 0, 0, 0, 99, 1, 0, 0, 0]).await, MuxError::Frame(_)));
    assert!(matches!(host_sees(&[6, 0, 0]).await, MuxError::Closed));
    assert!(matches!(host_sees(&encode([open(2)])[..7]).await, MuxError::Closed));
}

#[tokio::test]
async fn floods_are_cut_off() {
    let too_many = (2..).step_by(2).take(MAX_PEER_STREAMS + 1).map(open);
    assert_eq!(breach(too_many).await, "more streams are open than the limit");
    let message = || frame(FrameKind::Message, 2, Bytes::new());
    let messages =
        std::iter::once(open(2)).chain(std::iter::repeat_with(message).take(MAX_PENDING_MESSAGES + 1));
    assert_eq!(breach(messages).await, "more messages of a stream wait than the limit");
    let message = || frame(FrameKind::Message, 2, vec![0; MAX_MESSAGE]);
    let messages = std::iter::once(open(2)).chain(std::iter::repeat_with(message).take(17));
    assert_eq!(breach(messages).await, "more bytes of messages wait than the limit");
    let data = || frame(FrameKind::Data, 2, vec![0; MAX_DATA + 1]);
    let all = INITIAL_CREDIT / data_cost(MAX_DATA) + 1;
    let data = std::iter::once(open(2)).chain(std::iter::repeat_with(data).take(all as usize));
    assert_eq!(breach(data).await, "more data than the credit allows");
    let tiny = || frame(FrameKind::Data, 2, vec![0]);
    let tiny =
        std::iter::once(open(2)).chain(std::iter::repeat_with(tiny).take((INITIAL_CREDIT / 64) as usize + 1));
    assert_eq!(breach(tiny).await, "more data than the credit allows");
}

/// A guest that never reads, and opens and resets streams or pings without end.
#[tokio::test]
async fn a_peer_that_does_not_read_cannot_fill_the_memory() {
    let (ours, (_unread, mut to_host)) = pipe();
    let (host, mut incoming) = Mux::start(ours.0, ours.1, Role::Host, Decoder::in_session());
    let answering = tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            let (_reader, writer) = stream.split();
            let _gone = writer.message(vec![0; 1000].into()).await;
            let _gone = writer.close().await;
        }
    });
    for n in 1..5000 {
        let ping = frame(FrameKind::Ping, 0, vec![0; 8]);
        let reset = frame(FrameKind::Reset, 2 * n, Bytes::from_static(b"never mind"));
        within(to_host.write_all(&encode([open(2 * n), ping, reset]))).await.unwrap();
    }
    assert!(host.end().is_none());
    assert!(host.connection.shared.lock().len() <= 3 * MAX_PEER_STREAMS);
    drop(to_host);
    drop(_unread);
    within(host.closed()).await;
    within(answering).await.unwrap();
}

#[tokio::test]
async fn late_frames_of_an_ended_stream_are_ignored() {
    let (ours, (mut from_host, mut to_host)) = pipe();
    let (host, mut incoming) = Mux::start(ours.0, ours.1, Role::Host, Decoder::in_session());
    to_host.write_all(&encode([open(2)])).await.unwrap();
    drop(within(incoming.next()).await.unwrap());
    let mut decoder = Decoder::in_session();
    let reset = loop {
        if let Some(Item::Frame(frame)) = decoder.next_item().unwrap() {
            break frame;
        }
        within(from_host.read_buf(decoder.buffer_mut())).await.unwrap();
    };
    assert_eq!((reset.kind, reset.stream), (FrameKind::Reset, 2));
    let late = [
        frame(FrameKind::Data, 2, vec![0; 100]),
        frame(FrameKind::Message, 2, vec![0; 100]),
        frame(FrameKind::Close, 2, Bytes::new()),
        open(4),
    ];
    to_host.write_all(&encode(late)).await.unwrap();
    assert_eq!(within(incoming.next()).await.unwrap().1.id(), 4);
    assert!(host.end().is_none());
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let kind = prop_oneof![
        3 => Just(FrameKind::Open),
        3 => Just(FrameKind::Data),
        1 => Just(FrameKind::Eof),
        2 => Just(FrameKind::Message),
        1 => Just(FrameKind::Credit),
        1 => Just(FrameKind::Close),
        1 => Just(FrameKind::Reset),
        1 => Just(FrameKind::Ping),
    ];
    (kind, 0_u32..12, any::<u8>(), 0_usize..3000).prop_map(|(kind, stream, byte, len)| {
        let len = match kind {
            FrameKind::Eof => 1,
            FrameKind::Credit => return frame(kind, stream, u32::from(byte).to_le_bytes().to_vec()),
            FrameKind::Close => 0,
            FrameKind::Reset => len.min(100),
            FrameKind::Ping => 8,
            FrameKind::Data => len.max(1),
            _ => len,
        };
        frame(kind, stream, vec![byte; len])
    })
}

/// A host that answers everything, and drops, closes or keeps streams by turns.
async fn survives(bytes: BytesMut) {
    let (ours, (mut from_host, mut to_host)) = pipe();
    let (host, mut incoming) = Mux::start(ours.0, ours.1, Role::Host, Decoder::in_session());
    let mine = host.open(Bytes::from_static(b"mine")).await.unwrap();
    let serving = tokio::spawn(async move {
        let mut kept = vec![mine];
        while let Some((payload, stream)) = incoming.next().await {
            match payload.len() % 3 {
                0 => kept.push(stream),
                1 => drop(stream),
                _ => {
                    let (mut reader, writer) = stream.split();
                    drop(reader.next().await);
                    let _gone = writer.data(0, payload).await;
                    let _gone = writer.close().await;
                }
            }
        }
        for stream in kept {
            let (mut reader, _writer) = stream.split();
            while !matches!(reader.next().await, StreamItem::Closed | StreamItem::Reset(_)) {}
        }
    });
    let draining = tokio::spawn(async move {
        let mut sink = Vec::new();
        let _end = from_host.read_to_end(&mut sink).await;
    });
    let _refused = within(to_host.write_all(&bytes)).await;
    let _gone = to_host.shutdown().await;
    within(host.closed()).await;
    within(serving).await.unwrap();
    within(draining).await.unwrap();
    assert_eq!(host.connection.shared.lock().len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_frames_end_well(frames in prop::collection::vec(any_frame(), 0..60), noise in prop::collection::vec(any::<u8>(), 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut bytes = encode(frames);
        bytes.extend_from_slice(&noise);
        runtime.block_on(survives(bytes));
    }

    #[test]
    fn streams_opened_in_order_end_well(frames in prop::collection::vec(any_frame(), 0..60)) {
        let mut next = 0;
        let frames = frames.into_iter().map(|mut frame| {
            match frame.kind {
                FrameKind::Open => {
                    next += 2;
                    frame.stream = next;
                }
                _ => frame.stream = frame.stream.min(next).max(1),
            }
            frame
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(survives(encode(frames)));
    }
}
