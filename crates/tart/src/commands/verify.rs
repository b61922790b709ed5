//! `tart verify`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tart_config::Editor;
use tart_gitlab::{Token, VerifyOutcome};

use crate::failure::Annotate as _;
use crate::output;
use crate::selection::Selection;
use crate::server::{client, config_path, info, system_id};

/// Ask GitLab whether the runners of the configuration are valid
///
/// A server that does not answer proves nothing: such a runner counts as valid and is never removed.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 no runner is invalid, or the invalid ones were removed; 1 some are.")]
pub(crate) struct VerifyArgs {
    /// The configuration file
    #[arg(long, short = 'c', env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only runners of this name
    #[arg(long, short = 'n', value_name = "NAME")]
    name: Option<String>,
    /// Only runners of this server
    #[arg(long, short = 'u', value_name = "URL")]
    url: Option<String>,
    /// Only the runner with this token
    #[arg(long, short = 't', value_name = "TOKEN")]
    token: Option<String>,
    /// Remove invalid runners from the configuration
    #[arg(long)]
    delete: bool,
}

pub(crate) async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let path = config_path(args.config);
    let config = tart_config::load(&path)?.config;
    let selection =
        Selection { name: args.name.as_deref(), url: args.url.as_deref(), token: args.token.as_deref() };
    let chosen =
        if selection.is_empty() { (0..config.runners.len()).collect() } else { selection.all(&config)? };
    let system_id = system_id(&path);
    let mut invalid = Vec::new();
    for runner in chosen.into_iter().filter_map(|number| config.runners.get(number)) {
        let token = Token::new(runner.token.expose());
        let verdict = match client(runner)?.verify(&token, &system_id, &info(runner)).await {
            VerifyOutcome::Valid(_) => "is valid".to_owned(),
            VerifyOutcome::Removed => {
                invalid.push(runner);
                "is not valid: GitLab does not know its token".to_owned()
            }
            VerifyOutcome::Unknown(error) => format!("could not be verified: {error}"),
        };
        let line = format!("runner {} ({}) {verdict}\n", runner.display_name(), runner.token.shortened());
        output::to_stdout(&line)?;
    }
    if invalid.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.delete {
        let count = invalid.len();
        return Err(anyhow::anyhow!("{count} of the runners are not valid"))
            .hint("`tart verify --delete` removes them from the configuration");
    }
    let mut editor = Editor::open(&path)?;
    for runner in &invalid {
        // The file may have changed in the meantime.
        if let Some(number) = editor.find(&runner.url, &runner.token) {
            editor.remove(number)?;
        }
    }
    editor.save().context("the invalid runners were not removed")?;
    output::to_stdout(&format!("{} of the runners were removed from {}\n", invalid.len(), path.display()))?;
    Ok(ExitCode::SUCCESS)
}
