use std::{
    io::{Read, Seek, Write},
    os::fd::AsFd,
};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{Answer, MAX_DESCRIPTORS, MAX_MESSAGE, Open};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ask {
    text: String,
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

async fn both(dir: &Path) -> (Connection, Connection) {
    let path = dir.join("socket");
    let listener = Listener::bind(&path, own()).unwrap();
    let (client, accepted) = tokio::join!(Connection::open(&path, Open::Network), listener.accept());
    let (server, peer) = accepted.unwrap();
    assert_eq!(peer, Peer { uid: own(), gid: rustix::process::getegid().as_raw() });
    assert_eq!(server.receive::<Open>().await.unwrap().0, Open::Network);
    (client.unwrap(), server)
}

#[tokio::test]
async fn requests_and_answers_carry_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let (client, server) = both(dir.path()).await;
    let mut sent = tempfile::tempfile().unwrap();
    sent.write_all(b"of the runner").unwrap();
    let serve = async {
        let (ask, mut got) = server.receive::<Ask>().await.unwrap();
        let mut file = fs::File::from(got.pop().unwrap());
        file.rewind().unwrap();
        let mut text = ask.text;
        file.read_to_string(&mut text).unwrap();
        let answer: Answer<Ask> = Ok(Ask { text });
        server.send(&answer, &[file.as_fd(), file.as_fd()]).await.unwrap();
        let _ask = server.receive::<Ask>().await.unwrap();
        server.send(&Answer::<Ask>::Err("there is no such thing".to_owned()), &[]).await.unwrap();
    };
    let ask = async {
        let ask = Ask { text: "a file ".to_owned() };
        let (answer, got) = client.call::<Ask>(&ask, &[sent.as_fd()]).await.unwrap();
        assert_eq!((answer.text.as_str(), got.len()), ("a file of the runner", 2));
        let error = client.call::<Ask>(&ask, &[]).await.unwrap_err();
        assert_eq!(error.to_string(), "the root helper: there is no such thing");
    };
    tokio::join!(serve, ask);
    drop(server);
    assert!(matches!(client.receive::<Ask>().await, Err(HelperError::Closed)));
    assert!(matches!(client.send(&0, &[]).await, Err(HelperError::Closed)));
}

#[tokio::test]
async fn what_is_too_much_is_not_sent_and_what_is_no_message_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (client, server) = both(dir.path()).await;
    let long = Ask { text: "x".repeat(MAX_MESSAGE) };
    assert!(matches!(client.send(&long, &[]).await, Err(HelperError::TooLarge)));
    let many = vec![client.as_fd(); MAX_DESCRIPTORS + 1];
    assert!(matches!(client.send(&1, &many).await, Err(HelperError::TooLarge)));
    client.send(&"no such request", &many[1..]).await.unwrap();
    assert!(matches!(server.receive::<Ask>().await, Err(HelperError::Malformed(_))));
    let most = Ask { text: "x".repeat(MAX_MESSAGE - 16) };
    client.send(&most, &[]).await.unwrap();
    assert_eq!(server.receive::<Ask>().await.unwrap().0, most);
}

#[tokio::test]
async fn other_users_are_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = Listener::bind(&path, own() + 1).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = async {
        // It may be closed before or after it has said what it wants.
        let closed = match Connection::open(&path, Open::Monitor).await {
            Ok(client) => client.receive::<Ask>().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(closed, HelperError::Closed), "{closed}");
    };
    tokio::select! {
        () = client => {}
        _ = listener.accept() => panic!("it was let in"),
    }
    drop(listener);
    let error = Connection::open(&path, Open::Monitor).await.unwrap_err();
    assert!(error.to_string().contains("No such file or directory"), "{error}");
}

proptest! {
    #[test]
    fn any_packet_is_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (client, server) = both(dir.path()).await;
            rustix::net::send(client.as_fd(), &bytes, rustix::net::SendFlags::empty()).unwrap();
            let _either = server.receive::<Ask>().await;
        });
    }
}
