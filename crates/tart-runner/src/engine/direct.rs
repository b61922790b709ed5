//! Stages that need no shell in the guest.

use tart_guest::{Guest, GuestError};
use tart_job::outcome::Failure;
use tart_job::plan::DirectWork;
use tart_job::stages::Stage;
use tart_proto::message::{MountStep, PutFile, Root};

use super::control::Scope;
use super::job::{Job, say_halt};
use super::script::{Broken, is_root};

impl Job<'_> {
    /// Does a stage's work, as its script would in the helper tree.
    pub(super) async fn direct(
        &mut self,
        stage: &Stage,
        work: &DirectWork,
        scope: &Scope,
    ) -> Result<(), Failure> {
        let Some(guest) = self.guest.take() else { return Err(Failure::system("there is no guest")) };
        self.log.output(work.text.as_bytes());
        self.usage.output += work.text.len() as u64;
        let done = make(guest.agent(), work, is_root(&self.image.user));
        let result = match self.control.unless_halted(scope, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(Broken::Guest(error), &guest).await),
            Err(failure) => {
                say_halt(stage, &failure, &mut self.log);
                Err(failure)
            }
        };
        self.guest = Some(guest);
        result
    }
}

/// What is made for a job whose user is not root is writable for everyone, see [`super::script::helper_shell`].
async fn make(guest: &Guest, work: &DirectWork, for_root: bool) -> Result<(), GuestError> {
    let (directory, file) = if for_root { (0o755, 0o644) } else { (0o777, 0o666) };
    let helper = Root::Helper;
    let steps = work.directories.iter().map(|path| MountStep::Directory {
        path: format!("{}{path}", helper.mount_point()),
        mode: directory,
    });
    let steps: Vec<_> = steps.collect();
    if !steps.is_empty() {
        guest.mount(&steps).await?;
    }
    for path in &work.files {
        let put = PutFile { root: helper, path: path.clone(), mode: file, owner: String::new() };
        guest.put_file(&put, &b""[..]).await?;
    }
    Ok(())
}
