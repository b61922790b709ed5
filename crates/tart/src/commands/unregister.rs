//! `tart unregister`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tart_config::{Editor, Runner, Secret};
use tart_gitlab::{SystemId, Token, UnregisterOutcome};

use crate::output;
use crate::selection::Selection;
use crate::server::{client, config_path, system_id, unreachable};

/// Remove runners from GitLab and from the configuration
///
/// Of a runner that was created in GitLab (its token begins with `glrt-`), only this machine's manager is removed.
#[derive(Debug, Args)]
pub(crate) struct UnregisterArgs {
    /// The configuration file
    #[arg(long, short = 'c', env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The runner of this name
    #[arg(long, short = 'n', value_name = "NAME")]
    name: Option<String>,
    /// The runner's server; CI_SERVER_URL if no runner is named
    #[arg(long, short = 'u', value_name = "URL")]
    url: Option<String>,
    /// The runner's token; CI_SERVER_TOKEN if no runner is named
    #[arg(long, short = 't', value_name = "TOKEN")]
    token: Option<String>,
    /// All runners of the configuration
    #[arg(long, conflicts_with_all = ["name", "url", "token"])]
    all_runners: bool,
}

pub(crate) async fn run(mut args: UnregisterArgs) -> anyhow::Result<ExitCode> {
    // Not by the parser: the server's address is always set in jobs and in pods of the runner's Helm chart, and must
    // not get in the way of flags.
    if !args.all_runners && args.name.is_none() {
        args.token = args.token.or_else(|| setting("CI_SERVER_TOKEN"));
        if args.token.is_none() {
            anyhow::bail!("no runner is named: use --name, --url with --token, or --all-runners");
        }
        args.url = args.url.or_else(|| setting("CI_SERVER_URL"));
    }
    let path = config_path(args.config);
    let mut editor = Editor::open(&path)?;
    let selection =
        Selection { name: args.name.as_deref(), url: args.url.as_deref(), token: args.token.as_deref() };
    let chosen: Vec<Runner> = if args.all_runners {
        editor.config().runners.clone()
    } else {
        match (selection.one(editor.config()), args.url, args.token) {
            (Ok(number), _, _) => editor.config().runners.get(number).cloned().into_iter().collect(),
            // It may be a runner that no file has any more.
            (Err(_), Some(url), Some(token)) => vec![stranger(&url, token)?],
            (Err(error), _, _) => return Err(error),
        }
    };
    let system_id = system_id(&path);
    let mut failed = None;
    for runner in &chosen {
        match remove(runner, &system_id).await {
            Ok(line) => {
                output::to_stdout(&line)?;
                if let Some(number) = editor.find(&runner.url, &runner.token) {
                    editor.remove(number)?;
                }
            }
            Err(error) => {
                failed = Some(error.context(format!("runner {} was not removed", runner.display_name())));
            }
        }
    }
    editor.save().context("the runners were removed from GitLab, but the configuration was not changed")?;
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// A variable of the environment that is not empty.
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn stranger(url: &str, token: String) -> anyhow::Result<Runner> {
    let url = tart_config::instance(url).map_err(|why| anyhow::anyhow!("the URL {why}"))?.url;
    Ok(Runner { url, token: Secret::new(token), ..Runner::default() })
}

/// Removes a runner from its server, and says how that went.
async fn remove(runner: &Runner, system_id: &SystemId) -> anyhow::Result<String> {
    let name = runner.display_name();
    match client(runner)?.unregister(&Token::new(runner.token.expose()), system_id).await {
        UnregisterOutcome::Removed => Ok(format!("runner {name} is unregistered\n")),
        UnregisterOutcome::Forbidden => Ok(format!("runner {name} was unknown to GitLab already\n")),
        UnregisterOutcome::NotFound => {
            Ok(format!("this machine's manager of runner {name} was unknown to GitLab already\n"))
        }
        UnregisterOutcome::Failed(error) => Err(unreachable(runner, error)),
    }
}
