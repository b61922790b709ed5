//! What a guest does before a job comes, so that the job finds it done: the kernel has read the programs of the stages,
//! and an emulated processor has translated the code that starts them.
//!
//! There is nothing of a job in it, and nothing of it is left but what the kernel and the monitor remember.

use std::time::Duration;

use tart_guest::{CommandEvent, Guest, GuestError};
use tart_job::scripts::SHELL_CANDIDATES;
use tart_proto::message::{Exec, ExitStatus, FailureKind, Limits, Output, PutFile, Root};
use tart_proto::time::scaled;

/// How long the helper tree's programs may take.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// How long the image's shell may take; one that does not end is left to the job.
const SHELL_LIMIT: Duration = Duration::from_secs(5);

/// Where the programs are.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The control group that it runs in.
const CGROUP: &str = "rehearsal";

/// The file that is written, in the agent's memory, where no job sees it.
const FILE: &str = "/run/tart/rehearsal";

/// What the stages run in the helper tree, so that it is in the memory of the template. Git's part for HTTPS is told to
/// do nothing: with the first connection the kernel would draw secrets of its network, which all guests would share.
pub(super) const TOOLS: &str =
    "mkdir -p /tmp; find / -maxdepth 0; (:); git --version; git remote-https https://127.0.0.1/; exit 0";

/// What a shell of any image can do without another program.
pub(super) const SHELL: &str =
    "command set -o pipefail 2>/dev/null || :; trap 'exit 1' TERM; (:); printf ''; exit 0";

/// Has the shell of the helper tree run `text`, which is [`TOOLS`] or [`SHELL`].
///
/// # Errors
/// Why the guest is of no use.
pub(super) async fn of_helper(guest: &Guest, text: &str) -> Result<(), String> {
    let put = PutFile { root: Root::Agent, path: FILE.to_owned(), mode: 0o600, owner: String::new() };
    guest.put_file(&put, SHELL.as_bytes()).await.map_err(|error| error.to_string())?;
    match run(guest, Root::Helper, "/bin/bash", text, HELPER_LIMIT).await {
        Ok(Some(ExitStatus::Code(0))) => Ok(()),
        Ok(status) => Err(format!("the helper tree's shell does not work: {status:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Has the shell of the image read, as far as it has one, and tells which that is. How it ends is for the job to see.
///
/// # Errors
/// Why the guest is of no use.
pub(super) async fn of_image(guest: &Guest) -> Result<Option<&'static str>, String> {
    for shell in SHELL_CANDIDATES {
        match run(guest, Root::Job, shell, SHELL, SHELL_LIMIT).await {
            Ok(_) => return Ok(Some(shell)),
            Err(error) if error.failure_kind() == Some(FailureKind::NotFound) => {}
            Err(error) if error.failure_kind().is_some() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(None)
}

/// `None` if it did not end in time, and was ended.
async fn run(
    guest: &Guest,
    root: Root,
    shell: &str,
    text: &str,
    limit: Duration,
) -> Result<Option<ExitStatus>, GuestError> {
    let exec = Exec {
        root,
        argv: [shell, "-c", text].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), PATH.to_owned())],
        cwd: "/".to_owned(),
        user: String::new(),
        output: Output::Merged,
        stdin: false,
        cgroup: CGROUP.to_owned(),
        limits: Limits::default(),
    };
    let mut command = guest.exec(&exec).await?;
    let end = async {
        loop {
            if let CommandEvent::Exited(exited) = command.next().await? {
                return Ok(exited.status);
            }
        }
    };
    match tokio::time::timeout(scaled(limit), end).await {
        Ok(status) => status.map(Some),
        Err(_) => {
            command.control().cancel(Duration::ZERO).await?;
            Ok(None)
        }
    }
}
