//! Renewing the tokens of runners before they expire.

use std::path::Path;

use jiff::Timestamp;
use tart_config::{Config, Editor, Runner, Secret};
use tart_gitlab::{Token, renew_at};

use crate::server::client;

/// Switches the renewal off; it is only said then that one is due.
const DISABLE: &str = "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION";

/// Whether some runner's token is due: after three quarters of its life.
pub(crate) fn is_due(config: &Config, now: Timestamp) -> bool {
    config.runners.iter().any(|runner| runner_is_due(runner, now))
}

fn runner_is_due(runner: &Runner, now: Timestamp) -> bool {
    let (Some(obtained), Some(expires)) = (runner.token_obtained_at, runner.token_expires_at) else {
        return false;
    };
    renew_at(obtained, expires).is_some_and(|at| at <= now)
}

/// Renews all tokens that are due, one after the other, and keeps each new one in the file before the next is asked
/// for. What goes wrong is logged, and the old token stays.
pub(crate) async fn renew(path: &Path, now: Timestamp) {
    let count = match Editor::open(path) {
        Ok(editor) => editor.config().runners.len(),
        Err(error) => return tracing::error!(%error, "Tokens cannot be renewed"),
    };
    for number in 0..count {
        if let Err(error) = renew_one(path, number, now).await {
            tracing::error!(error = format!("{error:#}"), "A runner's token was not renewed");
        }
    }
}

async fn renew_one(path: &Path, number: usize, now: Timestamp) -> anyhow::Result<()> {
    // Read again for each: somebody may have changed the file meanwhile.
    let mut editor = Editor::open(path)?;
    let Some(runner) = editor.config().runners.get(number).cloned() else { return Ok(()) };
    if !runner_is_due(&runner, now) {
        return Ok(());
    }
    let runner_name = runner.display_name();
    if runner.feature_flags.get(DISABLE).copied().unwrap_or(false) {
        tracing::warn!(runner_name, "The runner's token expires soon, and {DISABLE} forbids to renew it");
        return Ok(());
    }
    let new = client(&runner)?.reset_token(&Token::new(runner.token.expose())).await?;
    let token = Secret::new(new.token.expose());
    editor.set_token(number, &token, Some(new.token_obtained_at), new.token_expires_at)?;
    editor.save()?;
    tracing::info!(runner_name, runner = token.shortened(), "The runner's token was renewed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tart_test_gitlab::{RunnerHandle, RunnerOptions, TestGitlab};

    use super::*;

    const OBTAINED: &str = "2026-01-01T00:00:00Z";
    const EXPIRES: &str = "2026-01-05T00:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn entry(server: &TestGitlab, runner: &RunnerHandle, more: &str) -> String {
        let (url, token) = (server.url(), runner.token());
        format!(
            "[[runners]]\nname = \"{token}\"\nurl = \"{url}\"\ntoken = \"{token}\"\ntoken_obtained_at = {OBTAINED}\n\
             token_expires_at = {EXPIRES}\nexecutor = \"microvm\"\n{more}\n"
        )
    }

    fn loaded(path: &Path) -> Config {
        tart_config::load(path).expect("a good configuration").config
    }

    #[tokio::test]
    async fn tokens_are_renewed_after_three_quarters_of_their_life() {
        let server = TestGitlab::start().await;
        let first = server.add_runner(RunnerOptions::default());
        let kept = server.add_runner(RunnerOptions::default());
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        let flag = format!("[runners.feature_flags]\n{DISABLE} = true");
        let text = format!("concurrent = 1\n{}{}", entry(&server, &first, ""), entry(&server, &kept, &flag));
        fs::write(&path, text).expect("a file");
        let (early, late) = (at("2026-01-03T23:59:59Z"), at("2026-01-04T00:00:00Z"));

        let before = loaded(&path);
        assert!(!is_due(&before, early) && is_due(&before, late));
        renew(&path, early).await;
        assert_eq!(loaded(&path), before);

        renew(&path, late).await;
        let after = loaded(&path);
        let tokens: Vec<_> = after.runners.iter().map(|runner| runner.token.expose().to_owned()).collect();
        assert_ne!(tokens[0], before.runners[0].token.expose());
        assert_eq!(tokens, [first.token(), kept.token()], "the server and the file agree");
        assert_eq!(after.runners[1], before.runners[1]);
        server.assert_no_violations();
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_renewed_stays() {
        let server = TestGitlab::start().await;
        let gone = server.add_runner(RunnerOptions::default());
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        fs::write(&path, format!("concurrent = 1\n{}", entry(&server, &gone, ""))).expect("a file");
        let before = loaded(&path);
        gone.delete();
        renew(&path, at(EXPIRES)).await;
        assert_eq!(loaded(&path), before);
    }
}
