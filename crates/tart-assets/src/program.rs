//! Running the programs of the distribution that build assets.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::{
    error::{AssetError, IoContext, Result},
    store::Store,
};

/// Most of an error's text that is shown, in bytes.
const MAX_MESSAGE: u64 = 2000;

/// A program and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
}

pub(crate) const APT_CACHE: Program = Program { name: "apt-cache", package: "apt" };
pub(crate) const APT_GET: Program = Program { name: "apt-get", package: "apt" };
pub(crate) const MKE2FS: Program = Program { name: "mke2fs", package: "e2fsprogs" };
pub(crate) const MMDEBSTRAP: Program = Program { name: "mmdebstrap", package: "mmdebstrap" };
pub(crate) const SQFS2TAR: Program = Program { name: "sqfs2tar", package: "squashfs-tools-ng" };
pub(crate) const TAR: Program = Program { name: "tar", package: "tar" };
pub(crate) const TAR2SQFS: Program = Program { name: "tar2sqfs", package: "squashfs-tools-ng" };

impl Program {
    /// A command with an environment that does not change what it writes.
    pub(crate) fn command<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(self.name);
        // Ordinary users often lack the directories of mke2fs and chroot.
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(args).stdin(Stdio::null()).env("LC_ALL", "C").env("SOURCE_DATE_EPOCH", "0");
        command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"));
        command
    }

    /// Whether it is installed.
    pub(crate) fn is_installed(name: &str) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
        directories.map(|directory| directory.join(name)).any(|file| file.is_file())
    }

    /// What it writes to standard output, once it has succeeded.
    pub(crate) fn output(self, mut command: Command) -> Result<String> {
        let output = command.output().map_err(|error| self.not_started(error))?;
        let message = output.stderr.get(output.stderr.len().saturating_sub(2000)..).unwrap_or_default();
        self.outcome(output.status, message)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts it; what it writes to standard error is kept for [`Running::finish`].
    pub(crate) fn start(self, store: &Store, mut command: Command) -> Result<Running> {
        let temporary = store.temporary();
        let log = tempfile::tempfile_in(&temporary).at("make a file in", &temporary)?;
        command.stderr(log.try_clone().at("make a file in", &temporary)?);
        let child = command.spawn().map_err(|error| self.not_started(error))?;
        Ok(Running { program: self, child, log })
    }

    fn not_started(self, error: io::Error) -> AssetError {
        let Self { name: program, package } = self;
        if error.kind() == io::ErrorKind::NotFound {
            return AssetError::MissingProgram { program, package };
        }
        AssetError::Io { action: "start", path: program.into(), source: error }
    }

    fn outcome(self, status: ExitStatus, message: &[u8]) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(message).trim().to_owned();
        Err(AssetError::Program { program: self.name.to_owned(), status: status.to_string(), message })
    }
}

/// A program that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    program: Program,
    pub(crate) child: Child,
    log: File,
}

impl Running {
    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait().at("wait for", self.program.name)?;
        let mut message = Vec::new();
        let length = self.log.seek(SeekFrom::End(0)).unwrap_or(0);
        let tail = self.log.seek(SeekFrom::Start(length.saturating_sub(MAX_MESSAGE)));
        if tail.is_ok() {
            let _partial = (&self.log).take(MAX_MESSAGE).read_to_end(&mut message);
        }
        self.program.outcome(status, &message)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing if it has ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
