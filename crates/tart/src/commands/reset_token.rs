//! `tart reset-token`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tart_config::{Editor, Secret};
use tart_gitlab::{ResetError, Token};

use crate::failure::{Annotate as _, Exit};
use crate::output;
use crate::selection::Selection;
use crate::server::{client, config_path, unreachable};

/// Replace the token of a runner by a new one, in GitLab and in the configuration
#[derive(Debug, Args)]
pub(crate) struct ResetTokenArgs {
    /// The configuration file
    #[arg(long, short = 'c', env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The runner of this name
    #[arg(long, short = 'n', value_name = "NAME")]
    name: Option<String>,
    /// The runner's server
    #[arg(long, short = 'u', value_name = "URL")]
    url: Option<String>,
    /// The runner's number in GitLab
    #[arg(long, short = 'i', value_name = "ID")]
    id: Option<u64>,
    /// All runners of the configuration
    #[arg(long, conflicts_with_all = ["name", "url", "id"])]
    all_runners: bool,
    /// A personal access token to ask with, instead of the runner's own token
    #[arg(long, env = "PAT", hide_env_values = true, value_name = "TOKEN")]
    pat: Option<String>,
}

pub(crate) async fn run(args: ResetTokenArgs) -> anyhow::Result<ExitCode> {
    let path = config_path(args.config);
    // Open from the start: once a token is replaced, the new one must have its place.
    let mut editor = Editor::open(&path)?;
    let selection = Selection { name: args.name.as_deref(), url: args.url.as_deref(), token: None };
    let numbers: Vec<usize> = if args.all_runners {
        (0..editor.config().runners.len()).collect()
    } else if let Some(id) = args.id {
        let numbered = editor.config().runners.iter().enumerate();
        let url = args.url.as_deref().map(|url| url.trim_end_matches('/'));
        let found = numbered.filter(|(_, runner)| runner.id == id && url.is_none_or(|url| runner.url == url));
        found.map(|(number, _)| number).collect()
    } else if selection.is_empty() {
        anyhow::bail!("no runner is named: use --name, --id or --all-runners");
    } else {
        vec![selection.one(editor.config())?]
    };
    if numbers.is_empty() {
        anyhow::bail!("no runner of the configuration matches");
    }
    let access = args.pat.filter(|pat| !pat.is_empty()).map(Token::from);
    let mut failed = None;
    for number in numbers {
        if let Err(error) = reset(&mut editor, number, access.as_ref()).await {
            failed = Some(error);
            break;
        }
    }
    editor.save().hint(
        "if a token was replaced, the new one is lost: reset it again on the runner's page in GitLab",
    )?;
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

async fn reset(editor: &mut Editor, number: usize, access: Option<&Token>) -> anyhow::Result<()> {
    let Some(runner) = editor.config().runners.get(number).cloned() else { return Ok(()) };
    let name = runner.display_name();
    let client = client(&runner)?;
    let answer = match access {
        Some(access) => {
            let id = i64::try_from(runner.id).ok().filter(|id| *id != 0);
            let Some(id) = id else {
                anyhow::bail!("the configuration does not have the number of runner {name}")
            };
            client.reset_token_of(id, access).await
        }
        None => client.reset_token(&Token::new(runner.token.expose())).await,
    };
    let new = match answer {
        Ok(new) => new,
        Err(ResetError::Failed(error)) => return Err(unreachable(&runner, error)),
        Err(refused) => return Err(refused).exit(Exit::Server),
    };
    let token = Secret::new(new.token.expose());
    editor.set_token(number, &token, Some(new.token_obtained_at), new.token_expires_at)?;
    output::to_stdout(&format!("runner {name} has a new token ({})\n", token.shortened()))?;
    Ok(())
}
