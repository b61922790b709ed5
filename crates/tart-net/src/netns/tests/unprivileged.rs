//! A runner that is another user and has no privileges, in a process of its own.

use std::{
    net::Ipv4Addr,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::Command,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    super::{
        NetnsNetwork, NetnsOptions,
        address::{GATEWAY, GUEST},
        dns::query,
        system::missing_capability,
    },
    lab::{Lab, OTHER, OUTSIDE, PUBLIC},
    policy,
};
use crate::{AttachRequest, Attachment, Network as _, NicLink};

/// The user that it is.
const NOBODY: u32 = 65534;

/// Where its helper is.
const SOCKET: &str = "TART_TEST_NETWORK_HELPER";

#[tokio::test]
async fn a_runner_needs_no_privileges_beside_a_helper() {
    let lab = Lab::new().await;
    let mut helper = lab.helper(NOBODY, 8).await;
    let socket = helper.socket.clone();
    let run = move || {
        let runner = "netns::tests::unprivileged::the_runner_without_privileges";
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", runner, "--ignored", "--nocapture"]).env(SOCKET, socket);
        Ok(command.uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap())
    };
    let output = lab.host.run(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    // What it asked about the host, and its guest.
    helper.ended_one().await;
    helper.ended_one().await;
    helper.end().await;
    assert_eq!(lab.left().await, "");
}

#[tokio::test]
#[ignore = "run by another test, as another user"]
async fn the_runner_without_privileges() {
    assert!(missing_capability().is_some());
    let error = NetnsNetwork::start(NetnsOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("`tart root-helper`"), "{error}");

    let helper = Some(std::env::var_os(SOCKET).unwrap().into());
    let network = NetnsNetwork::start(NetnsOptions { helper, ..NetnsOptions::default() }).await.unwrap();
    assert!(network.describe().starts_with("netns (by the root helper): "), "{}", network.describe());
    let request = AttachRequest {
        nameservers: vec![OUTSIDE.parse().unwrap()],
        bandwidth: Some(1 << 20),
        ..policy(true, &["public.test:80"], &[], None)
    };
    let attachment = network.attach(&request).await.unwrap();
    let guest = Guest::of(&*attachment);

    guest.sends(PUBLIC.parse().unwrap(), 80, b"not looked up yet");
    assert_eq!(guest.looks_up("public.test").await, 0);
    assert_eq!(guest.looks_up("other.test").await, 5, "refused");
    guest.sends(PUBLIC.parse().unwrap(), 80, b"allowed");
    guest.sends(OTHER.parse().unwrap(), 80, b"denied");
    let usage = attachment.usage().await;
    let carried: Vec<_> =
        usage.carried.iter().map(|to| (to.destination.as_str(), to.name.as_deref())).collect();
    assert_eq!(carried, [("198.51.100.10:80/udp", Some("public.test"))]);
    let mut denied: Vec<_> = usage.denied.iter().map(ToString::to_string).collect();
    denied.sort();
    assert_eq!(denied, ["198.51.100.10:80/udp", "198.51.100.11:80/udp", "other.test"]);
    attachment.detach().await;
}

/// A guest's kernel, as far as the test needs one.
struct Guest(OwnedFd);

impl Guest {
    fn of(attachment: &dyn Attachment) -> Self {
        let Some(NicLink::Tap(tap)) = attachment.guest().nic.as_ref().map(|nic| nic.link.clone()) else {
            panic!("no tap device")
        };
        Self(tap.try_clone().unwrap())
    }

    /// Sends a datagram from port 9.
    fn sends(&self, to: Ipv4Addr, port: u16, data: &[u8]) {
        let bytes = |number: usize| u16::try_from(number).unwrap().to_be_bytes();
        let udp = [&[0, 9], &port.to_be_bytes()[..], &bytes(8 + data.len()), &[0, 0], data].concat();
        let mut ip = [&[0x45, 0], &bytes(20 + udp.len())[..], &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
        ip.extend([GUEST.octets(), to.octets()].concat());
        let words = ip.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let macs = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        // After a header that says that nothing is left to do.
        let frame = [&[0; 10], &macs[..], &ip, &udp].concat();
        assert_eq!(rustix::io::write(&self.0, &frame).unwrap(), frame.len());
    }

    /// The code of the answer to a query.
    async fn looks_up(&self, name: &str) -> u8 {
        self.sends(GATEWAY, 53, &query(name));
        let tap = self.0.try_clone().unwrap();
        tokio::task::spawn_blocking(move || answer(&tap)).await.unwrap()
    }
}

/// Waits for a datagram of the name server.
fn answer(tap: &OwnedFd) -> u8 {
    let limit = Timespec::try_from(Duration::from_secs(20)).unwrap();
    let mut frame = [0; 2048];
    loop {
        let mut ready = [PollFd::new(tap, PollFlags::IN)];
        assert_eq!(poll(&mut ready, Some(&limit)).unwrap(), 1, "no answer");
        let len = rustix::io::read(tap, &mut frame).unwrap();
        let from_server = [&GATEWAY.octets()[..], &GUEST.octets(), &[0, 53]].concat();
        if let Some([.., code]) = frame[..len].get(36..56).filter(|part| part[..10] == from_server) {
            return code & 15;
        }
    }
}
