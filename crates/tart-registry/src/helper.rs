//! Credential helpers: programs named `docker-credential-NAME` that know passwords.

use std::{process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

use crate::{auth::Auth, error::RegistryError};

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

/// Asks a helper about a registry. Nothing if it does not know it.
///
/// The name may come from a job, so it is a plain word: no path, and only programs of that scheme on `PATH`.
pub(crate) async fn get(name: &str, server: &str) -> Result<Option<Auth>, RegistryError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let text = format!("`{}` is no name of a credential helper", name.escape_debug());
        return Err(RegistryError::Settings(text));
    }
    let program = format!("docker-credential-{name}");
    let failed =
        |problem: String| RegistryError::Settings(format!("the credential helper `{program}` {problem}"));
    let child = Command::new(&program)
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
        tracing::debug!(%program, server, %status, "the credential helper has no answer");
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
        for name in ["", "../x", "a/b", "A", "a b", "x;y"] {
            assert!(matches!(get(name, "a").await, Err(RegistryError::Settings(_))), "{name}");
        }
        let error = get("no-such-helper", "a").await.unwrap_err();
        insta::assert_snapshot!(error, @"the credential helper `docker-credential-no-such-helper` cannot be started: No such file or directory (os error 2)");
    }
}
