//! Archives between the guest's helper and the host.

use std::io;

use bytes::Bytes;
use tart_archive::Request;
use tart_guest::{Command, CommandControl, Guest, GuestError};
use tart_job::stages::Stage;
use tart_proto::limits::MAX_DATA;
use tart_proto::message::{Exec, HELPER, Limits, Output, Root};

use super::script::{self, PATH};

/// The helper's exit code when nothing is to be archived.
pub(super) const NOTHING: i32 = 3;

/// How taking an archive apart ended.
pub(super) enum Unpacked {
    Done,
    /// The helper failed, and has said why.
    Helper,
    /// The archive broke off.
    Source(io::Error),
}

/// Why the helper was not fed to the end.
pub(super) enum Fed {
    Source(io::Error),
    Guest(GuestError),
}

/// The helper in the tree of git, as root: what it makes is the job's to change, since its directories are.
pub(super) fn helper(verb: &str, directory: &str, stage: &Stage) -> Exec {
    Exec {
        root: Root::Helper,
        argv: vec![HELPER.to_owned(), verb.to_owned()],
        env: vec![("PATH".to_owned(), PATH.to_owned())],
        cwd: directory.to_owned(),
        user: String::new(),
        output: Output::Separate,
        stdin: true,
        cgroup: script::cgroup(&stage.name()),
        limits: Limits::default(),
    }
}

/// Starts the helper with a request.
pub(super) async fn ask(agent: &Guest, stage: &Stage, request: &Request) -> Result<Command, GuestError> {
    let command = agent.exec(&helper("archive", "/", stage)).await?;
    let control = command.control();
    match write(&control, request.encode().into()).await {
        // A helper that ended says why.
        Ok(()) | Err(Fed::Source(_) | Fed::Guest(GuestError::Ended)) => {}
        Err(Fed::Guest(error)) => return Err(error),
    }
    match control.close_stdin().await {
        Ok(()) | Err(GuestError::Ended) => Ok(command),
        Err(error) => Err(error),
    }
}

/// Writes to a command in pieces that fit a frame.
pub(super) async fn write(control: &CommandControl, mut bytes: Bytes) -> Result<(), Fed> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(MAX_DATA));
        control.write_stdin(piece).await.map_err(Fed::Guest)?;
    }
    Ok(())
}
