//! Archives between the guest's helper and the host.

use std::fs::File;
use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tart_archive::Request;
use tart_guest::{Command, CommandControl, CommandEvent, Guest, GuestError};
use tart_job::stages::Stage;
use tart_proto::limits::MAX_DATA;
use tart_proto::message::{Exec, ExitStatus, HELPER, Limits, Output, Root};
use tokio::io::AsyncWriteExt;

use super::control::Scope;
use super::job::Job;
use super::script::{self, Broken, PATH};

/// The helper's exit code when nothing is to be archived, as the guest tells codes.
pub(super) const NOTHING: i32 = tart_archive::NOTHING as i32;

/// Digits of a fingerprint.
const FINGERPRINT: usize = 64;

/// How taking an archive apart ended.
pub(super) enum Unpacked {
    /// With the fingerprint of what came out of a cache.
    Done(Option<String>),
    /// The helper failed, and has said why.
    Helper,
    /// The archive broke off.
    Source(io::Error),
}

/// Why the helper was not fed to the end.
enum Fed {
    Source(io::Error),
    Guest(GuestError),
}

impl From<GuestError> for Fed {
    fn from(error: GuestError) -> Self {
        Self::Guest(error)
    }
}

/// The helper in the tree of git, as root: what it makes is the job's to change, since its directories are.
fn helper(verb: &str, directory: &str, stage: &Stage) -> Exec {
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
    let asked = async {
        write(&control, request.encode().into()).await?;
        control.close_stdin().await
    };
    match asked.await {
        // A helper that ended says why.
        Ok(()) | Err(GuestError::Ended) => Ok(command),
        Err(error) => Err(error),
    }
}

/// Writes to a command in pieces that fit a frame.
async fn write(control: &CommandControl, mut bytes: Bytes) -> Result<(), GuestError> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(MAX_DATA));
        control.write_stdin(piece).await?;
    }
    Ok(())
}

impl Job<'_> {
    /// Has the helper write an archive to a file.
    pub(super) async fn pack(
        &mut self,
        agent: &Guest,
        stage: &Stage,
        request: &Request,
        writer: File,
        most: u64,
        scope: &Scope,
    ) -> Result<Packed, Broken> {
        let mut command = ask(agent, stage, request).await?;
        let mut writer = tokio::fs::File::from_std(writer);
        let mut bytes = 0_u64;
        loop {
            let event = tokio::select! {
                biased;
                failure = self.control.halted(scope) => return Err(failure.into()),
                event = command.next() => event?,
            };
            match event {
                CommandEvent::Stderr(bytes) => self.log.output(&bytes),
                CommandEvent::Stdout(piece) => {
                    bytes += piece.len() as u64;
                    if bytes > most {
                        return Ok(Packed::TooLarge);
                    }
                    if let Err(error) = writer.write_all(&piece).await {
                        return Ok(Packed::Store(error));
                    }
                }
                CommandEvent::Exited(exited) => {
                    return Ok(match exited.status {
                        ExitStatus::Code(0) => match writer.flush().await {
                            Ok(()) => Packed::Done,
                            Err(error) => Packed::Store(error),
                        },
                        ExitStatus::Code(NOTHING) => Packed::Nothing,
                        _ => Packed::Helper,
                    });
                }
            }
        }
    }

    /// Has the helper take an archive apart.
    pub(super) async fn unpack(
        &mut self,
        agent: &Guest,
        stage: &Stage,
        directory: &str,
        archive: impl Stream<Item = io::Result<Bytes>>,
        scope: &Scope,
    ) -> Result<Unpacked, Broken> {
        let verb = if *stage == Stage::RestoreCache { "extract-cache" } else { "extract" };
        let mut command = agent.exec(&helper(verb, directory, stage)).await?;
        let mut said = Vec::new();
        let control = command.control();
        let feed = async move {
            let mut archive = std::pin::pin!(archive);
            while let Some(piece) = archive.next().await {
                write(&control, piece.map_err(Fed::Source)?).await?;
            }
            Ok(control.close_stdin().await?)
        };
        let mut feed = std::pin::pin!(feed);
        let mut fed = false;
        loop {
            tokio::select! {
                biased;
                failure = self.control.halted(scope) => return Err(failure.into()),
                done = &mut feed, if !fed => match done {
                    Ok(()) => fed = true,
                    // A helper that ended says why.
                    Err(Fed::Guest(GuestError::Ended)) => fed = true,
                    Err(Fed::Guest(error)) => return Err(error.into()),
                    Err(Fed::Source(error)) => return Ok(Unpacked::Source(error)),
                },
                event = command.next() => match event? {
                    CommandEvent::Stderr(bytes) => self.log.output(&bytes),
                    CommandEvent::Stdout(bytes) => {
                        let room = FINGERPRINT.saturating_sub(said.len());
                        said.extend(bytes.iter().take(room));
                    }
                    CommandEvent::Exited(exited) if exited.status == ExitStatus::Code(0) => {
                        return Ok(Unpacked::Done(fingerprint(&said)));
                    }
                    CommandEvent::Exited(_) => return Ok(Unpacked::Helper),
                },
            }
        }
    }
}

/// What the helper said, if it is a fingerprint.
fn fingerprint(said: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(said).ok()?;
    (text.len() == FINGERPRINT && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

/// How an archive came to its end.
pub(super) enum Packed {
    Done,
    /// Nothing matched, or nothing has changed, which the helper has said.
    Nothing,
    /// The helper failed, and has said why.
    Helper,
    TooLarge,
    Store(io::Error),
}
