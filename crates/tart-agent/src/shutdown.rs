//! Stopping the guest.

use std::time::Duration;

use rustix::system::RebootCommand;
use tart_proto::time::scaled;

use crate::{console, machine::Machine, mounts};

/// How long writing everything back may take. The host has its own limit for the whole of it.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// How long killed commands may take to let go of their files.
const EMPTY_LIMIT: Duration = Duration::from_secs(2);

/// Pause before another try to reset.
const RETRY: Duration = Duration::from_secs(1);

/// Kills all commands, unmounts what was mounted on request, and writes everything back.
pub(crate) async fn stop(machine: &Machine) {
    machine.cgroups.kill_all();
    let _hanging = tokio::time::timeout(scaled(EMPTY_LIMIT), machine.cgroups.emptied()).await;
    mounts::unmount_all(machine);
    // A disk that is gone must not keep the agent from its reset.
    let sync = tokio::task::spawn_blocking(rustix::fs::sync);
    if tokio::time::timeout(scaled(SYNC_LIMIT), sync).await.is_err() {
        console::say("the disks take too long to sync; not waiting for them");
    }
}

/// Resets the machine at once, which ends the virtual machine: neither Firecracker nor QEMU (with `-no-reboot`)
/// starts it again, and Firecracker cannot see a power-off.
pub fn reset() -> ! {
    loop {
        if let Err(error) = rustix::system::reboot(RebootCommand::Restart) {
            console::say(format_args!("cannot reset the machine: {error}"));
        }
        std::thread::sleep(RETRY);
    }
}
