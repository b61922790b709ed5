use super::*;

#[test]
fn a_missing_program_is_named() {
    let error = PasstNetwork::detect(Some(Path::new("/nonexistent/passt"))).unwrap_err();
    insta::assert_snapshot!(error, @"the network `passt` needs the program `/nonexistent/passt`: it is not installed; install the package passt");
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("passt");
    fs::write(
        &program,
        "#!/bin/sh\necho 'Failed to send 7 bytes to syslog' >&2\necho 'no interface' >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let network = PasstNetwork::detect(Some(&program)).unwrap();
    let error = network.attach(&AttachRequest::default()).await.unwrap_err();
    assert!(error.to_string().ends_with(": no interface"), "{error}");
}

#[tokio::test]
async fn a_policy_is_refused_rather_than_ignored() {
    let network = PasstNetwork::detect(Some(Path::new("/bin/true"))).unwrap();
    let egress = crate::Egress { job: Some(Vec::new()), ..crate::Egress::default() };
    let request = AttachRequest { egress, ..AttachRequest::default() };
    insta::assert_snapshot!(network.attach(&request).await.unwrap_err(), @r#"the network `passt` cannot limit what a job reaches or carries: use `mode = "netns"`, which needs root, or `relay`"#);
}

#[tokio::test]
async fn what_is_on_the_host_itself_is_relayed() {
    let policy = Policy { host: vec![Ipv4Addr::new(192, 0, 2, 2)] };
    for (endpoint, relayed) in
        [("127.0.0.1:80", true), ("localhost:80", true), ("192.0.2.2:80", true), ("192.0.2.3:80", false)]
    {
        let allowed = Allowed::direct(endpoint.parse().unwrap());
        assert_eq!(needs_relay(&allowed, &policy).await, relayed, "{endpoint}");
    }
}

/// `passt` itself, with a guest that makes its own frames.
#[cfg(feature = "slow-tests")]
mod real {
    use std::net::TcpListener;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Ones' complement sum of RFC 1071.
    fn checksum(parts: &[&[u8]]) -> [u8; 2] {
        let bytes = parts.concat();
        let sum: u32 =
            bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        (!u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()).to_be_bytes()
    }

    /// A TCP packet that opens a connection.
    fn syn(to: Ipv4Addr, port: u16) -> Vec<u8> {
        let mut tcp = [0_u8; 20];
        tcp[..2].copy_from_slice(&40000_u16.to_be_bytes());
        tcp[2..4].copy_from_slice(&port.to_be_bytes());
        (tcp[12], tcp[13]) = (5 << 4, 2);
        tcp[14..16].copy_from_slice(&64240_u16.to_be_bytes());
        let sum = checksum(&[&GUEST.octets(), &to.octets(), &[0, 6, 0, 20], &tcp]);
        tcp[16..18].copy_from_slice(&sum);
        let mut ip = [0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        ip[12..16].copy_from_slice(&GUEST.octets());
        ip[16..].copy_from_slice(&to.octets());
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum);
        let frame = [&[0xff; 6][..], &MAC, &[8, 0], &ip, &tcp].concat();
        [&54_u32.to_be_bytes()[..], &frame].concat()
    }

    fn wire(fd: OwnedFd) -> UnixStream {
        tokio_stream(fd.into()).unwrap()
    }

    /// Opens a connection to a listener on the loopback. True if it came.
    async fn reaches_loopback(mut wire: UnixStream) -> bool {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        wire.write_all(&syn(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port())).await.unwrap();
        // What comes in one read is not served in order, but the second request is sent after the first was answered.
        link::greet(&mut wire).await.unwrap();
        link::greet(&mut wire).await.unwrap();
        listener.accept().is_ok()
    }

    #[tokio::test]
    async fn the_hosts_loopback_is_out_of_reach_only_because_frames_are_filtered() {
        let network = PasstNetwork::detect(None).unwrap();
        let attachment = network.attach(&AttachRequest::default()).await.unwrap();
        let Some(Nic { link: NicLink::Stream(fd), .. }) = &attachment.guest().nic else {
            panic!("no device")
        };
        assert!(!reaches_loopback(wire(fd.try_clone().unwrap())).await);
        attachment.detach().await;

        let (near, far) = StdUnixStream::pair().unwrap();
        let child = start(&network.program, far.into()).unwrap();
        let (_child, near) = greeted(child, near).await.unwrap();
        assert!(reaches_loopback(near).await, "passt alone would let it through");
    }
}
