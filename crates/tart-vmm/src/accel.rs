//! How guest code is run: by the processor itself, or emulated.

mod cache;
mod probe;

use std::{fmt, future::Future, path::Path, pin::Pin, time::Duration};

use crate::{AgentStream, Isolation, RunDir, VmmError};
use cache::{Cache, Key, Verdict};

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM if a guest boots with it here, else emulation.
    #[default]
    Auto,
    /// KVM, or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

/// How guest code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// By the processor itself.
    Kvm,
    /// By QEMU's emulator.
    Tcg,
}

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "with KVM",
            Self::Tcg => "emulated (TCG)",
        })
    }
}

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How guest code is to be run.
    pub acceleration: Acceleration,
    /// Why, for people.
    pub reason: String,
    /// The reason was found earlier, on this host and with the same programs.
    pub cached: bool,
}

impl Choice {
    /// KVM, since there is no other way.
    #[must_use]
    pub fn required(reason: &str) -> Self {
        Self { acceleration: Acceleration::Kvm, reason: reason.to_owned(), cached: false }
    }

    /// One line for `tart doctor`.
    #[must_use]
    pub fn explain(&self) -> String {
        let when = if self.cached { " (found earlier)" } else { "" };
        format!("guests run {}: {}{when}", self.acceleration, self.reason)
    }
}

/// What a probe boots, and where.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// The QEMU program; found in the search path without it.
    pub qemu: Option<&'a Path>,
    /// The kernel that jobs get, for QEMU.
    pub kernel: &'a Path,
    /// The initramfs that jobs get.
    pub initrd: &'a Path,
    /// Digest of kernel and initramfs: another one is probed anew.
    pub digest: &'a str,
    /// File that the result is kept in; its directory is made if missing.
    pub cache: &'a Path,
    /// Where the probe's machine gets its directory.
    pub run_dir: &'a RunDir,
    /// What it is kept apart with, as those of jobs are.
    pub isolation: &'a Isolation,
    /// Socket of the root helper that starts it, if this process cannot.
    pub helper: Option<&'a Path>,
    /// How long the guest may take until its agent answers.
    pub limit: Duration,
}

/// Limit of a probe: a guest on a processor that runs it is ready within a second or two.
pub const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// What waits on an agent's stream until the agent is ready, or tells why it is not.
pub type Greet =
    dyn Fn(AgentStream) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// Chooses how guests are run. That `/dev/kvm` can be opened proves nothing: with `Auto` and `Kvm` a guest is booted
/// to its agent's greeting, unless the answer is known.
///
/// # Errors
/// [`VmmError::NoKvm`] for `Accel::Kvm` where no guest boots with KVM; [`VmmError::Program`] without QEMU.
pub async fn choose(wish: Accel, probe: &Probe<'_>, greet: &Greet) -> Result<Choice, VmmError> {
    if wish == Accel::Tcg {
        let reason = "the configuration asks for it".to_owned();
        return Ok(Choice { acceleration: Acceleration::Tcg, reason, cached: false });
    }
    let choice = find_out(probe, greet).await?;
    if wish == Accel::Kvm && choice.acceleration != Acceleration::Kvm {
        return Err(VmmError::NoKvm { reason: choice.reason });
    }
    Ok(choice)
}

async fn find_out(probe: &Probe<'_>, greet: &Greet) -> Result<Choice, VmmError> {
    // Not kept: a permission may be granted at any time, and asking is free.
    if let Err(reason) = probe::open_kvm() {
        return Ok(Choice { acceleration: Acceleration::Tcg, reason, cached: false });
    }
    let qemu = crate::qemu::find(probe.qemu)?;
    let key = Key::of(&qemu, probe.digest)?;
    let cache = Cache::at(probe.cache);
    if let Some(Verdict { acceleration, reason }) = cache.get(&key) {
        return Ok(Choice { acceleration, reason, cached: true });
    }
    let verdict = match probe::boot(probe, &qemu, greet).await? {
        Ok(reason) => Verdict { acceleration: Acceleration::Kvm, reason },
        Err(reason) => Verdict { acceleration: Acceleration::Tcg, reason },
    };
    if let Err(error) = cache.put(key, &verdict) {
        tracing::warn!(path = %probe.cache.display(), %error, "cannot keep the result of the KVM probe");
    }
    let Verdict { acceleration, reason } = verdict;
    Ok(Choice { acceleration, reason, cached: false })
}

#[cfg(test)]
mod tests;
