//! What the flags leave open is asked for, in the official runner's words and order.

use std::io::BufRead as _;

use anyhow::{Context as _, bail};
use tart_gitlab::Token;

use super::RegisterArgs;
use crate::failure::Annotate as _;
use crate::output;

/// A registration with all that it needs.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) url: String,
    pub(super) credential: Credential,
    pub(super) name: String,
    pub(super) executor: String,
    pub(super) tags: Vec<String>,
    pub(super) maintenance_note: Option<String>,
}

/// What the server is shown.
#[derive(Debug)]
pub(super) enum Credential {
    /// A runner's own token: the runner exists.
    Runner(Token),
    /// A token that makes a new runner.
    Registration(Token),
}

pub(super) fn complete(args: &RegisterArgs) -> anyhow::Result<Wish> {
    let ask = Ask { interactive: !args.non_interactive };
    let url = ask.needed(
        "--url",
        args.url.as_deref(),
        "Enter the GitLab instance URL (for example, https://gitlab.com/):",
    )?;
    let url = tart_config::instance(&url).map_err(|why| anyhow::anyhow!("the URL {why}"))?.url;
    let credential = credential(args, ask)?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (mut tags, mut maintenance_note) = (args.legacy.tags(), args.legacy.maintenance_note.clone());
    let name = match &credential {
        Credential::Runner(_) => {
            let given = args.legacy.given();
            if !given.is_empty() {
                return Err(anyhow::anyhow!("{} cannot be used with a runner's own token", given.join(", ")))
                    .hint(
                        "such settings of a runner that was created in GitLab are changed on its page there",
                    );
            }
            let question = "Enter a name for the runner. This is stored only in the local config.toml file:";
            ask.or_default(args.name.as_deref(), question, &host)?
        }
        Credential::Registration(_) => {
            let name = ask.or_default(args.name.as_deref(), "Enter a description for the runner:", &host)?;
            if tags.is_empty() {
                let list = ask.or_default(None, "Enter tags for the runner (comma-separated):", "")?;
                tags =
                    list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
            }
            if maintenance_note.is_none() {
                let note = ask.or_default(None, "Enter optional maintenance note for the runner:", "")?;
                maintenance_note = Some(note);
            }
            name
        }
    };
    let executor =
        ask.or_default(args.executor.as_deref(), "Enter an executor: microvm, docker:", "microvm")?;
    if !matches!(executor.as_str(), "microvm" | "docker") {
        bail!("there is no executor `{executor}`: use `microvm`, or `docker` which means the same");
    }
    Ok(Wish {
        url,
        credential,
        name,
        executor,
        tags,
        maintenance_note: maintenance_note.filter(|note| !note.is_empty()),
    })
}

fn credential(args: &RegisterArgs, ask: Ask) -> anyhow::Result<Credential> {
    let given = |token: &Option<String>| {
        token.as_deref().map(str::trim).filter(|token| !token.is_empty()).map(Token::from)
    };
    if let Some(token) = given(&args.token) {
        return Ok(Credential::Runner(token));
    }
    let token = match given(&args.registration_token) {
        Some(token) => token,
        None => ask.needed("--token", None, "Enter the registration token:")?.into(),
    };
    Ok(if token.is_created_runner() { Credential::Runner(token) } else { Credential::Registration(token) })
}

/// Asks a person, or takes what there is.
#[derive(Debug, Clone, Copy)]
struct Ask {
    interactive: bool,
}

impl Ask {
    /// An answer that must be given. Asks until it is.
    fn needed(self, flag: &str, given: Option<&str>, question: &str) -> anyhow::Result<String> {
        let given = given.map(str::trim).filter(|given| !given.is_empty());
        if !self.interactive {
            let given = given.with_context(|| format!("{flag} is missing"));
            return Ok(given.hint("without --non-interactive it is asked for")?.to_owned());
        }
        loop {
            let answer = self.or_default(None, question, given.unwrap_or_default())?;
            if !answer.is_empty() {
                return Ok(answer);
            }
        }
    }

    /// An answer, or what is taken without one: the given value, else the default.
    fn or_default(self, given: Option<&str>, question: &str, default: &str) -> anyhow::Result<String> {
        let default = given.map(str::trim).filter(|given| !given.is_empty()).unwrap_or(default);
        if !self.interactive {
            return Ok(default.to_owned());
        }
        // The standard output is for the result.
        output::to_stderr(&format!("{question}\n[{default}]: "));
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).context("cannot read the answer")?;
        if read == 0 {
            return Err(anyhow::anyhow!("there is no answer: the input has ended"))
                .hint("--non-interactive asks no questions");
        }
        let answer = line.trim();
        Ok(if answer.is_empty() { default } else { answer }.to_owned())
    }
}
