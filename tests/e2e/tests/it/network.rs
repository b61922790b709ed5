//! What a guest reaches of its host.

use std::io::ErrorKind;
use std::net::TcpListener;

use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{JobSpec, JobState};

/// A shell function that says which of its `host port` arguments take a connection.
const SCAN: &str = "scan() { timeout 5 bash -c \"exec 3<>/dev/tcp/$1/$2\" 2>/dev/null && echo \"open: $1 $2\" || echo \"closed: $1 $2\"; }";

#[tokio::test]
async fn the_hosts_loopback_is_out_of_reach_but_for_the_server() {
    let listeners: Vec<TcpListener> =
        ["127.0.0.1:0", "[::1]:0"].iter().filter_map(|address| TcpListener::bind(address).ok()).collect();
    assert!(!listeners.is_empty(), "the host has a loopback");
    let scene = Scene::start(&Config::default()).await;
    let server = scene.server.url().trim_start_matches("http://").replace(':', " ");

    let mut lines = vec![SCAN.to_owned(), format!("scan {server}")];
    let gateway = "gateway=$(awk '$2 == \"00000000\" { print $3 }' /proc/net/route | head -n 1)";
    lines.push(gateway.to_owned());
    lines.push("gateway=${gateway:-0202000A}".to_owned());
    let dotted =
        "gateway=$((16#${gateway:6:2})).$((16#${gateway:4:2})).$((16#${gateway:2:2})).$((16#${gateway:0:2}))";
    lines.push(dotted.to_owned());
    for listener in &listeners {
        let port = listener.local_addr().expect("it listens").port();
        for host in
            ["127.0.0.1", "::1", "127.1.2.3", "localhost", "10.0.2.2", "10.0.2.3", "169.254.1.1", "$gateway"]
        {
            lines.push(format!("scan {host} {port}"));
        }
    }
    let job = scene.server.enqueue(JobSpec::script(lines).env("GIT_STRATEGY", "none")).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;

    let log = job.log();
    // The same scan finds what is allowed, so it would find the rest.
    assert!(log.contains(&format!("open: {server}")), "{log}");
    assert_eq!(log.matches("open: ").count() - log.matches("echo \"open: ").count(), 1, "{log}");
    for listener in listeners {
        listener.set_nonblocking(true).expect("a socket can be nonblocking");
        let error = listener.accept().expect_err("nobody connected");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    scene.finish();
}
