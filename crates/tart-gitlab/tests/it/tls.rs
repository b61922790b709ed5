use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tart_gitlab::{RequestOutcome, TlsFiles};
use tart_test_gitlab::{JobSpec, Options, RunnerOptions, TestGitlab};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{client, client_with, poll, take_job};

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

#[tokio::test]
async fn files_named_after_the_host_authenticate_both_sides() {
    let server = TestGitlab::start_with(Options::default().require_client_certificate()).await;
    let runner = server.add_runner(RunnerOptions::default());
    let directory = tempfile::tempdir().expect("a directory");
    let (ca, identity) = (server.ca_pem().expect("TLS"), server.client_identity().expect("TLS"));
    write(directory.path(), "127.0.0.1.crt", ca);
    write(directory.path(), "127.0.0.1.auth.crt", &identity.certificate_pem);
    write(directory.path(), "127.0.0.1.auth.key", &identity.key_pem);
    let tls = TlsFiles::default().or_in_directory(directory.path(), "127.0.0.1");
    let (client, _) = client_with(server.url(), |options| options.tls = tls);
    server.enqueue(JobSpec::script(["true"])).await;
    let job = take_job(&client, &runner.token()).await;
    let certificates = job.tls_certificates.expect("there is TLS");
    assert!(certificates.starts_with(ca.trim_end()), "{certificates}");
    assert_eq!(certificates.matches("-----BEGIN CERTIFICATE-----").count(), 2);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_replaced_file_is_noticed_and_a_broken_one_is_not_used() {
    let server = TestGitlab::start_with(Options::default().tls()).await;
    let stranger = TestGitlab::start_with(Options::default().tls()).await;
    let runner = server.add_runner(RunnerOptions::default());
    let directory = tempfile::tempdir().expect("a directory");
    let path = write(directory.path(), "ca.crt", stranger.ca_pem().expect("TLS"));
    let tls = TlsFiles { ca: Some(path), ..TlsFiles::default() };
    let (client, _) = client_with(server.url(), |options| options.tls = tls);
    let outcome = poll(&client, &runner.token()).await.outcome;
    assert!(
        matches!(&outcome, RequestOutcome::Failed(error) if error.to_string().contains("certificate")),
        "{outcome:?}"
    );

    // Another length makes a change visible even when the clock of the file system is too coarse for it.
    write(directory.path(), "ca.crt", &format!("# new\n{}", server.ca_pem().expect("TLS")));
    assert!(matches!(poll(&client, &runner.token()).await.outcome, RequestOutcome::NoJob));
    write(directory.path(), "ca.crt", "-----BEGIN CERTIFICATE-----\nhalf");
    server.enqueue(JobSpec::script(["true"])).await;
    take_job(&client, &runner.token()).await;
}

#[tokio::test]
async fn a_missing_file_is_named_and_makes_the_runner_unhealthy() {
    let directory = tempfile::tempdir().expect("a directory");
    let ca = directory.path().join("missing.crt");
    let tls = TlsFiles { ca: Some(ca.clone()), ..TlsFiles::default() };
    let (client, _) = client_with("https://127.0.0.1:1", |options| options.tls = tls);
    match poll(&client, "glrt-x").await.outcome {
        RequestOutcome::Unhealthy(error) => {
            assert!(error.to_string().contains(&*ca.to_string_lossy()), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unknown_authority_is_a_failure_that_says_so() {
    let server = TestGitlab::start_with(Options::default().tls()).await;
    let (client, _) = client(server.url());
    match poll(&client, "glrt-x").await.outcome {
        RequestOutcome::Failed(error) => assert!(error.to_string().contains("certificate"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// Answers every request with 204 and counts the connections.
async fn count_connections(max_age: Duration) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut server = JoinSet::new();
    let count = Arc::clone(&accepted);
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            connections.spawn(async move {
                let mut seen = Vec::new();
                while let Ok(1..) = stream.read_buf(&mut seen).await {
                    // The body of a poll ends with two objects, and is the last to arrive.
                    if seen.ends_with(b"}}") {
                        seen.clear();
                        stream
                            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                            .await
                            .expect("an open connection");
                    }
                }
            });
        }
    });
    let (client, _) = client_with(&url, |options| options.connection_max_age = max_age);
    for _ in 0..2 {
        let outcome = poll(&client, "glrt-x").await.outcome;
        assert!(matches!(outcome, RequestOutcome::NoJob), "{outcome:?}");
    }
    accepted.load(Ordering::SeqCst)
}

#[tokio::test]
async fn connections_are_used_again_until_they_are_too_old() {
    assert_eq!(count_connections(Duration::from_secs(900)).await, 1);
    assert_eq!(count_connections(Duration::ZERO).await, 2);
}
