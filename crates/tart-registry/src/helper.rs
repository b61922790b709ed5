//! Credential helpers: programs named `docker-credential-NAME` that know passwords.

use std::{process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

use crate::auth::Auth;

/// How long a helper may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Most bytes that are read of its answer.
const MAX_ANSWER: u64 = 64 << 10;

/// What a helper answers. It holds a secret and has no `Debug`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is no name of a helper, and nothing was run.
    Name(String),
    /// The helper does not work.
    Program(String),
}

/// Asks a helper about a registry. Nothing if it does not know it.
///
/// The name may come from a job, as in the official runner, and then the job may use what the helper knows. So it is a
/// plain word: no path, and only programs on `PATH` whose names say that they are helpers.
pub(crate) async fn get(name: &str, server: &str) -> Result<Option<Auth>, Failure> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(Failure::Name(format!("`{}` is no name of a credential helper", name.escape_debug())));
    }
    ask(&format!("docker-credential-{name}"), server).await
}

async fn ask(program: &str, server: &str) -> Result<Option<Auth>, Failure> {
    let failed = |problem: String| Failure::Program(format!("the credential helper `{program}` {problem}"));
    let child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| failed(format!("cannot be started: {error}")))?;
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // It may know without reading.
            let _closed = stdin.write_all(server.as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, answer))
    };
    let talked = timeout(LIMIT, talk).await;
    let talked = talked.map_err(|_| failed(format!("did not answer within {} seconds", LIMIT.as_secs())))?;
    let (status, answer) = talked.map_err(|error| failed(format!("cannot be asked: {error}")))?;
    if !status.success() {
        // Helpers say so in words of their own if they know nothing.
        tracing::debug!(program, server, %status, "the credential helper has no answer");
        return Ok(None);
    }
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| failed("answered something that is not JSON".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Auth::IdentityToken(answer.secret),
        _ => Auth::Basic { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_helper_is_a_plain_word() {
        for name in ["", "../x", "a/b", "A", "a b", "x;y", "a_b"] {
            assert!(matches!(get(name, "a").await, Err(Failure::Name(_))), "{name}");
        }
        let Err(Failure::Program(problem)) = get("no-such-helper", "a").await else { panic!("no error") };
        insta::assert_snapshot!(problem, @"the credential helper `docker-credential-no-such-helper` cannot be started: No such file or directory (os error 2)");
    }

    #[tokio::test]
    async fn a_helper_reads_the_registry_and_answers_in_json() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let good = program(
            "good",
            r#"[ "$1" = get ] && printf '{"ServerURL":"x","Username":"u","Secret":"%s"}' "$(cat)""#,
        );
        let auth = ask(&good, "r.example.com").await.unwrap();
        assert_eq!(auth, Some(Auth::Basic { user: "u".to_owned(), password: "r.example.com".to_owned() }));
        let token = program("token", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        assert_eq!(ask(&token, "a").await.unwrap(), Some(Auth::IdentityToken("t".to_owned())));
        let none = program("none", "echo credentials not found; exit 1");
        assert_eq!(ask(&none, "a").await.unwrap(), None);
        let junk = program("junk", "echo secret");
        let Err(Failure::Program(problem)) = ask(&junk, "a").await else { panic!("no error") };
        assert!(!problem.contains("secret"), "{problem}");
    }
}
