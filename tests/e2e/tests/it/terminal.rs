//! Terminals of jobs, as GitLab connects browsers with them: with the offered address, certificate and authorization.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tart_e2e::{Config, JOB, SOON, Scene};
use tart_test_gitlab::{JobHandle, JobSpec, JobState, Session, Variable};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

/// A browser's terminal.
struct Terminal {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    seen: String,
}

impl Terminal {
    /// Connects, or says with what status it was refused.
    async fn connect(session: &Session, authorization: &str) -> Result<Self, u16> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(session.certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let url = format!("{}/exec", session.url.replacen("https://", "wss://", 1));
        let address = url.strip_prefix("wss://").unwrap().split('/').next().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(address.rsplit_once(':').unwrap().0.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("Authorization", authorization.parse().unwrap());
        request.headers_mut().insert("Sec-WebSocket-Protocol", "terminal.gitlab.com".parse().unwrap());
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self { socket, seen: String::new() }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn type_in(&mut self, text: &str) {
        self.socket.send(Message::binary(text.as_bytes().to_vec())).await.unwrap();
    }

    /// Reads until the text was shown.
    async fn wait_for(&mut self, text: &str) {
        let shown = async {
            while !self.seen.contains(text) {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                    Some(Ok(Message::Ping(_))) => {}
                    other => panic!("no {text:?} but {other:?} after {:?}", self.seen),
                }
            }
        };
        assert!(tokio::time::timeout(SOON, shown).await.is_ok(), "no {text:?} in {:?}", self.seen);
    }

    /// Reads to the end, and gives its reason.
    async fn end(&mut self, limit: Duration) -> String {
        let ended = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return frame.reason.to_string(),
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(limit, ended).await.expect("it ends in time")
    }
}

async fn session(job: &JobHandle) -> Session {
    job.wait_for("the script", JOB, |job| job.log().contains("the script runs")).await;
    job.session().expect("a session is offered")
}

#[tokio::test]
async fn a_terminal_shares_the_jobs_machine_and_holds_the_job() {
    let scene = Scene::start(&Config::default().session_server("listen_address = \"127.0.0.1:0\"")).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let script = ["echo the script runs", "until test -e go; do sleep 0.1; done", "cat go"];
    let spec =
        JobSpec::of(&project, script).variable(Variable::masked("PASSWORD", "correct-horse-battery-staple"));
    let job = scene.server.enqueue(spec).await;
    let tart = scene.run();
    let session = session(&job).await;

    assert_eq!(Terminal::connect(&session, "0".repeat(64).as_str()).await.err(), Some(401));
    let mut terminal = Terminal::connect(&session, &session.authorization).await.unwrap();
    assert_eq!(Terminal::connect(&session, &session.authorization).await.err(), Some(423));
    terminal.type_in("stty size; echo \"in $PWD, length ${#PASSWORD}, $(id -un), $TERM\"\n").await;
    terminal.wait_for("24 80\r\n").await;
    terminal.wait_for("group/app, length 28, root, xterm-256color").await;
    terminal.socket.send(Message::text(r#"{"resize":{"rows":50,"cols":132}}"#)).await.unwrap();
    terminal.type_in("stty size\n").await;
    terminal.wait_for("50 132\r\n").await;
    // The terminal is not in the log, and the job goes on with what was done in it.
    terminal.type_in("echo from-the-terminal > new; mv new go\n").await;
    job.wait_for("the hold", JOB, |job| {
        job.log().contains("Terminal is connected, will time out in 30m0s...")
    })
    .await;
    assert!(job.log().contains("from-the-terminal") && !job.log().contains("24 80"), "{}", job.log());
    assert_eq!(job.state(), JobState::Running);
    terminal.type_in("echo still $((40 + 2))\n").await;
    terminal.wait_for("still 42").await;
    terminal.type_in("exit\n").await;
    assert_eq!(terminal.end(SOON).await, "the shell has ended");
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    assert!(job.log().contains("Terminal disconnected"), "{}", job.log());
    assert!(Terminal::connect(&session, &session.authorization).await.err() == Some(404));
    scene.drain(tart).await;
    scene.finish();
}

#[tokio::test]
async fn a_terminal_may_look_at_a_failed_job_for_a_while() {
    let config = Config::default()
        .session_server("listen_address = \"127.0.0.1:0\"")
        .session_server("session_timeout = 3");
    let scene = Scene::start(&config).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let script =
        ["echo the script runs", "until test -e go; do sleep 0.1; done", "echo broken > state; exit 3"];
    let job = scene.server.enqueue(JobSpec::of(&project, script)).await;
    let tart = scene.run();
    let session = session(&job).await;
    let mut terminal = Terminal::connect(&session, &session.authorization).await.unwrap();
    terminal.type_in("touch go; until test -e state; do :; done; cat state\n").await;
    terminal.wait_for("broken\r\n").await;
    assert_eq!(terminal.end(SOON).await, "terminal session timed out (maximum time allowed - 3s)");
    assert_eq!(job.wait_finished(JOB).await, JobState::Failed, "{}", job.log());
    assert_eq!((job.failure_reason().as_deref(), job.exit_code()), (Some("script_failure"), Some(3)));
    for line in [
        "Terminal is connected, will time out in 3s...",
        "terminal session timed out (maximum time allowed - 3s)",
    ] {
        assert!(job.log().contains(line), "no {line:?} in {}", job.log());
    }
    scene.drain(tart).await;
    scene.finish();
}
