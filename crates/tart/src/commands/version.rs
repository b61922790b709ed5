//! `tart version`

use std::process::ExitCode;

use tart_gitlab::{architecture, platform};

use crate::output;
use crate::product::{REVISION, VERSION};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let text = format!(
        "Version:      {VERSION}\nGit revision: {REVISION}\nOS/Arch:      {}/{}\n",
        platform(),
        architecture()
    );
    output::to_stdout(&text)?;
    Ok(ExitCode::SUCCESS)
}
