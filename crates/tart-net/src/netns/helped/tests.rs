use tart_root_helper::{Answer, Listener};

use super::*;
use crate::netns::host::Facts;

/// A runner's line to a helper that the test is.
async fn line(dir: &std::path::Path) -> (Line, Connection) {
    let socket = dir.join("socket");
    let listener = Listener::bind(&socket, rustix::process::geteuid().as_raw()).unwrap();
    let helper = Helper { socket, named_taps: false, side: HostSide::Here };
    let (line, accepted) = tokio::join!(helper.open(), listener.accept());
    let (connection, _) = accepted.unwrap();
    assert_eq!(connection.receive::<Open>().await.unwrap().0, Open::Network);
    (line.unwrap(), connection)
}

fn described(namespace: String) -> Given {
    let facts = Facts { mtu: 1500, ipv6: false, connected: Default::default(), firewall: None };
    Given::Host(Described { namespace, facts })
}

#[tokio::test]
async fn an_answer_that_nobody_waited_for_is_no_answer_to_the_next_request() {
    let dir = tempfile::tempdir().unwrap();
    let (line, helper) = line(dir.path()).await;
    // Polled once: the request is sent.
    timeout(Duration::ZERO, line.shape(7)).await.unwrap_err();
    let answer = async {
        for said in [Err("no".to_owned()), Ok(described("net-1".to_owned()))] {
            helper.receive::<Request>().await.unwrap();
            helper.send(&said, &[]).await.unwrap();
        }
    };
    let (given, ()) = tokio::join!(line.call(&Request::Describe), answer);
    assert!(matches!(given.unwrap().0, Given::Host(_)));
}

#[tokio::test]
async fn what_was_counted_is_read_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (line, helper) = line(dir.path()).await;
    let file = dir.path().join("counts");
    std::fs::write(&file, "{\"nftables\": []}").unwrap();
    let file = File::open(file).unwrap();
    let answer = async {
        assert_eq!(helper.receive::<Request>().await.unwrap().0, Request::Counts);
        helper.send(&Answer::Ok(Given::Done), &[std::os::fd::AsFd::as_fd(&file)]).await.unwrap();
        helper.receive::<Request>().await.unwrap();
        helper.send(&Answer::Ok(Given::Done), &[]).await.unwrap();
    };
    let counts = async { (line.list().await.unwrap(), line.list().await.unwrap_err().to_string()) };
    let ((text, error), ()) = tokio::join!(counts, answer);
    assert_eq!(text, "{\"nftables\": []}");
    assert!(error.ends_with("the answer is to another request"), "{error}");
}

#[test]
fn a_helper_of_another_network_is_of_no_use() {
    let helper = Helper { socket: PathBuf::new(), named_taps: false, side: HostSide::Here };
    let own = described(HostSide::Here.key().unwrap());
    assert_eq!(helper.host_of(own).unwrap().facts.mtu, 1500);
    let error = helper.host_of(described("net-1".to_owned())).unwrap_err();
    insta::assert_snapshot!(error, @"the network `netns` cannot be used with a root helper that is in another network namespace: start it in that of Tart");
}

#[tokio::test]
async fn a_helper_that_is_not_there_is_named() {
    let helper = Helper { socket: "/nowhere".into(), named_taps: false, side: HostSide::Here };
    insta::assert_snapshot!(helper.describe().await.unwrap_err(), @"the root helper cannot be reached at /nowhere: No such file or directory (os error 2); is `tart root-helper` running, and may this user use it?");
}
