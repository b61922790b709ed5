//! Handshakes.

use bytes::BytesMut;

use super::*;

async fn shake(stale: Vec<u8>, version: u16) -> Result<Decoder, MuxError> {
    let ((mut reader, mut writer), (mut from_host, mut to_host)) = pipe();
    let guest = async move {
        let mut sent = [0; 22];
        from_host.read_exact(&mut sent).await.unwrap();
        let mut decoder = Decoder::new();
        decoder.extend(&sent);
        let Some(Item::Preamble(asked)) = decoder.next_item().unwrap() else { panic!("no preamble") };
        let mut bytes = BytesMut::from(stale.as_slice());
        Preamble { version, token: asked.token }.encode(&mut bytes);
        Frame::new(FrameKind::Open, 2, Bytes::from_static(b"hello")).encode(&mut bytes).unwrap();
        // The host may have had enough of it.
        let _refused = to_host.write_all(&bytes).await;
        (from_host, to_host)
    };
    let host = async move {
        let shaken = handshake_host(&mut reader, &mut writer).await;
        drop((reader, writer));
        shaken
    };
    within(async { tokio::join!(host, guest) }).await.0
}

fn preamble(token: [u8; 16]) -> BytesMut {
    let mut bytes = BytesMut::new();
    Preamble::new(token).encode(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_new_session_starts_clean() {
    shake(Vec::new(), crate::limits::VERSION).await.unwrap();
}

#[tokio::test]
async fn stale_bytes_and_answers_to_others_are_skipped() {
    for stale in [
        b"TARTART TAR".to_vec(),
        vec![0xff; 100_000],
        preamble([9; 16]).to_vec(),
        // Cut off in the middle: what follows must not be taken for its rest.
        preamble([9; 16])[..10].to_vec(),
        b"TART".to_vec(),
    ] {
        let mut decoder = shake(stale, crate::limits::VERSION).await.unwrap();
        // The frame behind the answer is read or still to come, but nothing stale is.
        if let Some(item) = decoder.next_item().unwrap() {
            assert_eq!(item, Item::Frame(Frame::new(FrameKind::Open, 2, Bytes::from_static(b"hello"))));
        }
    }
}

proptest! {
    #[test]
    fn any_stale_bytes_are_skipped(stale in prop::collection::vec(prop_oneof![Just(b'T'), Just(b'A'), Just(b'R'), any::<u8>()], 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        prop_assert!(runtime.block_on(shake(stale, crate::limits::VERSION)).is_ok());
    }
}

#[tokio::test]
async fn endless_noise_is_given_up() {
    let noise = vec![0; crate::limits::MAX_RESYNC + 100_000];
    assert!(matches!(shake(noise, crate::limits::VERSION).await, Err(MuxError::Frame(_))));
}

#[tokio::test]
async fn another_version_is_refused_by_both_ends() {
    let theirs = crate::limits::VERSION + 1;
    let error = shake(Vec::new(), theirs).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the peer speaks version {theirs} of the protocol, not {}", theirs - 1)
    );

    let ((mut reader, mut writer), (mut from_guest, mut to_guest)) = pipe();
    let mut bytes = BytesMut::new();
    Preamble { version: theirs, token: [1; 16] }.encode(&mut bytes);
    to_guest.write_all(&bytes).await.unwrap();
    let refused = within(handshake_guest(&mut reader, &mut writer)).await;
    assert!(matches!(refused, Err(MuxError::Version { theirs: t }) if t == theirs));
    // The host learns why.
    let mut answer = [0; 22];
    within(from_guest.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, preamble([1; 16])[..]);
}

#[tokio::test]
async fn a_connection_that_ends_first_is_an_error() {
    let ((mut reader, mut writer), theirs) = pipe();
    drop(theirs);
    assert!(matches!(within(handshake_host(&mut reader, &mut writer)).await, Err(MuxError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_host_asks_again_and_the_session_survives_the_late_repetition() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (mut host_reader, mut host_writer) = tokio::io::split(ours);
    let (mut guest_reader, mut guest_writer) = tokio::io::split(theirs);
    let guest = async {
        // It comes up late: by then two preambles wait.
        tokio::time::sleep(Duration::from_secs(3)).await;
        handshake_guest(&mut guest_reader, &mut guest_writer).await.unwrap()
    };
    let host = handshake_host(&mut host_reader, &mut host_writer);
    let (host, guest) = tokio::join!(host, guest);
    let (host, _incoming) = Mux::start(host_reader, host_writer, Role::Host, host.unwrap());
    let (_guest, mut incoming) = Mux::start(guest_reader, guest_writer, Role::Guest, guest);
    let (_ours, _theirs) = stream(&host, &mut incoming).await;
}

#[tokio::test]
async fn a_preamble_in_a_session_ends_it_and_the_next_can_be_answered() {
    let (ours, (mut from_guest, mut to_guest)) = pipe();
    let (guest, mut incoming) = Mux::start(ours.0, ours.1, Role::Guest, Decoder::in_session());
    to_guest.write_all(&preamble([3; 16])).await.unwrap();
    let MuxError::NewSession(next) = within(guest.closed()).await else { panic!("it goes on") };
    assert!(within(incoming.next()).await.is_none());
    // Both halves are free by now.
    let mut rest = Vec::new();
    within(from_guest.read_to_end(&mut rest)).await.unwrap();
    let mut written = Vec::new();
    answer(&mut written, &next).await.unwrap();
    assert_eq!(written, preamble([3; 16]).to_vec());
}
