//! Finding the programs of monitors, and what they say of themselves.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::fs::{Access, access};

use crate::VmmError;

/// The program to run: as given, or from the search path. `hint` says what to do if it is not there.
pub(crate) fn find(name: &Path, hint: &str) -> Result<PathBuf, VmmError> {
    let refuse = |reason: &str| VmmError::Program { program: name.to_owned(), reason: reason.to_owned() };
    let usable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if name.components().count() > 1 {
        return if usable(name) { Ok(name.to_owned()) } else { Err(refuse("it is no program")) };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join(name)).find(|path| usable(path)).ok_or_else(|| refuse(hint))
}

/// What a program prints for one argument.
pub(crate) async fn output(program: &Path, argument: &str, limit: Duration) -> Result<String, VmmError> {
    let refuse = |reason: String| VmmError::Program { program: program.to_owned(), reason };
    let mut command = tokio::process::Command::new(program);
    command.arg(argument).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(limit, command.output())
        .await
        .map_err(|_| refuse("it does not tell its version".to_owned()))?
        .map_err(|e| refuse(e.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refuse(format!("it ended with {} and told no version", output.status)))
}
