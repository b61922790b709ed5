use proptest::prelude::*;

use super::*;

fn arbitrary_frame() -> impl Strategy<Value = Frame> {
    let bytes = |min, max| prop::collection::vec(any::<u8>(), min..=max);
    let kind_and_payload = prop_oneof![
        bytes(0, 2000).prop_map(|p| (FrameKind::Open, p)),
        bytes(1, 2000).prop_map(|p| (FrameKind::Data, p)),
        bytes(1, 1).prop_map(|p| (FrameKind::Eof, p)),
        bytes(0, 2000).prop_map(|p| (FrameKind::Message, p)),
        bytes(4, 4).prop_map(|p| (FrameKind::Credit, p)),
        Just((FrameKind::Close, Vec::new())),
        bytes(0, 100).prop_map(|p| (FrameKind::Reset, p)),
        bytes(8, 8).prop_map(|p| (FrameKind::Ping, p)),
    ];
    (kind_and_payload, any::<u32>()).prop_map(|((kind, payload), stream)| Frame::new(kind, stream, payload))
}

fn decode_all(decoder: &mut Decoder) -> Result<Vec<Item>, FrameError> {
    let mut items = Vec::new();
    while let Some(item) = decoder.next_item()? {
        items.push(item);
    }
    Ok(items)
}

proptest! {
    #[test]
    fn frames_survive_any_chunking(
        frames in prop::collection::vec(arbitrary_frame(), 0..20),
        chunk in 1_usize..700,
        junk in prop::collection::vec(0_u8..b'T', 0..50),
    ) {
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&junk);
        let preamble = Preamble::new([7; 16]);
        preamble.encode(&mut bytes);
        for frame in &frames {
            frame.encode(&mut bytes).unwrap();
        }
        let mut decoder = Decoder::new();
        let mut items = Vec::new();
        for part in bytes.chunks(chunk) {
            decoder.extend(part);
            items.extend(decode_all(&mut decoder).unwrap());
        }
        let expected: Vec<Item> =
            std::iter::once(Item::Preamble(preamble)).chain(frames.into_iter().map(Item::Frame)).collect();
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn hostile_bytes_never_panic_nor_grow_the_buffer(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        for mut decoder in [Decoder::new(), Decoder::in_session()] {
            decoder.extend(&bytes);
            let _outcome = decode_all(&mut decoder);
            prop_assert!(decoder.buffer.len() <= bytes.len());
        }
    }
}

#[test]
fn a_preamble_in_the_middle_starts_a_new_session() {
    let mut bytes = BytesMut::new();
    Frame::new(FrameKind::Close, 3, Bytes::new()).encode(&mut bytes).unwrap();
    Preamble::new([1; 16]).encode(&mut bytes);
    let mut decoder = Decoder::in_session();
    decoder.extend(&bytes);
    let items = decode_all(&mut decoder).unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items[1], Item::Preamble(Preamble::new([1; 16])));
}

#[test]
fn a_length_bomb_is_refused_before_its_payload_arrives() {
    let mut decoder = Decoder::in_session();
    decoder.extend(&0x7fff_ffff_u32.to_le_bytes());
    assert_eq!(decoder.next_item(), Err(FrameError::ImpossibleLength(0x7fff_ffff)));
}

#[test]
fn a_data_frame_over_its_own_limit_is_refused_from_the_header() {
    let mut decoder = Decoder::in_session();
    let len = u32::try_from(HEADER_LEN + MAX_DATA + 2).unwrap();
    decoder.extend(&len.to_le_bytes());
    decoder.extend(&[FrameKind::Data as u8]);
    assert_eq!(decoder.next_item(), Err(FrameError::BadLength { kind: FrameKind::Data, len: MAX_DATA + 2 }));
}

#[test]
fn the_search_for_a_preamble_gives_up() {
    let mut decoder = Decoder::new();
    decoder.extend(&vec![0; MAX_RESYNC + 10]);
    assert_eq!(decoder.next_item(), Err(FrameError::NoPreamble));
}

#[test]
fn oversized_frames_are_not_encoded() {
    let mut out = BytesMut::new();
    let frame = Frame::new(FrameKind::Reset, 1, vec![b'x'; MAX_REASON + 1]);
    assert!(frame.encode(&mut out).is_err());
    assert!(out.is_empty());
}
