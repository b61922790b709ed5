//! `tart register`

mod args;
mod questions;
mod registration;

use std::process::ExitCode;

use anyhow::Context as _;
use tart_config::{Editor, NewRunner, Secret};

use crate::failure::{Annotate as _, Exit};
use crate::output;
use crate::server::{config_path, system_id};
use crate::signals::Ends;
pub(crate) use args::RegisterArgs;
use registration::Registered;

pub(crate) async fn run(mut args: RegisterArgs) -> anyhow::Result<ExitCode> {
    let path = config_path(args.config.take());
    if !args.print {
        // Mistakes in the file show before the server is asked for anything.
        Editor::open_or_create(&path)?;
    }
    let template = match &args.template_config {
        Some(path) => {
            Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => None,
    };
    let wish = questions::complete(&args)?;
    let mut ends = Ends::listen()?;
    let system_id = system_id(&path);
    // What was asked of the server is waited for: only then is it known what there is to take back.
    let registering = registration::register(&wish, &args, &system_id);
    let mut registering = std::pin::pin!(registering);
    let mut signal = None;
    let registered = loop {
        tokio::select! {
            registered = &mut registering => break registered?,
            name = ends.next() => {
                if signal.replace(name).is_some() {
                    return Err(anyhow::anyhow!("ended by a second signal ({name})"))
                        .hint("GitLab may have a new runner now; remove it on its page")
                        .exit(Exit::Interrupted);
                }
                output::to_stderr(&format!("{name}: ending as soon as the server has answered\n"));
            }
        }
    };
    let new = NewRunner {
        name: wish.name.clone(),
        url: wish.url.clone(),
        token: Secret::new(registered.credentials.token.expose()),
        id: registered.credentials.id.and_then(|id| u64::try_from(id).ok()).unwrap_or_default(),
        token_obtained_at: Some(registered.credentials.token_obtained_at),
        token_expires_at: registered.credentials.token_expires_at,
        executor: wish.executor.clone(),
        template,
        settings: args.settings(),
    };
    let saved = match signal {
        Some(name) => Err(anyhow::anyhow!("ended by a signal ({name})")).exit(Exit::Interrupted),
        None => deliver(&args, &path, &new),
    };
    if let Err(error) = saved {
        return Err(take_back(&args, &registered, &system_id, error).await);
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the new runner to the file, or prints it.
fn deliver(args: &RegisterArgs, path: &std::path::Path, new: &NewRunner) -> anyhow::Result<()> {
    if args.print {
        return Ok(output::to_stdout(&Editor::render(new)?)?);
    }
    let mut editor = Editor::open_or_create(path)?;
    editor.append(new)?;
    editor.save()?;
    let text = format!(
        "Runner registered successfully. `tart run` starts it; one that runs already takes it up by itself.\n\
         Configuration (with the authentication token) was saved in {}\n",
        path.display()
    );
    output::to_stdout(&text)?;
    Ok(())
}

/// Removes the runner again, since nobody has its token.
async fn take_back(
    args: &RegisterArgs,
    registered: &Registered,
    system_id: &tart_gitlab::SystemId,
    error: anyhow::Error,
) -> anyhow::Error {
    let hint = if args.leave_runner {
        "the runner was left in GitLab, as --leave-runner says"
    } else {
        match registered.client.unregister(&registered.credentials.token, system_id).await {
            tart_gitlab::UnregisterOutcome::Failed(_) => {
                "the runner could not be removed again; do so on its page in GitLab"
            }
            _ => "the runner was unregistered again",
        }
    };
    let failed: anyhow::Result<()> = Err(error);
    failed
        .context("the runner was not saved")
        .hint(hint)
        .err()
        .unwrap_or_else(|| anyhow::anyhow!("not saved"))
}
