//! Ends machines whose runner was killed, where the kernel does not: those that run as another user.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use super::RunDir;
use crate::VmmError;

/// Waits until its input ends, which the runner holds open and never writes to; then has the kernel kill what is in the
/// control groups that the machines' directories name. A group has its name for itself, unlike a process its number.
const SCRIPT: &str = r#"read -r _
for record in "$1"/*/cgroup; do
    group=
    IFS= read -r group < "$record"
    if [ -n "$group" ]; then echo 1 > "$group/cgroup.kill"; fi
done"#;

/// A process that outlives the runner by a moment, to kill its machines that have a control group
/// ([`crate::MachineSpec::cgroup`]). It needs Linux 5.14; what it cannot kill, [`crate::reap`] does later.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Guards the machines of a runner's directory until it is dropped.
    ///
    /// # Errors
    /// [`VmmError::System`].
    pub fn start(run_dir: &RunDir) -> Result<Self, VmmError> {
        let failed = |e: io::Error| VmmError::system("run /bin/sh to guard virtual machines", e);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "tart-guard"]).arg(run_dir.path()).current_dir("/").env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // What interrupts the runner in its terminal is not meant for it.
        command.process_group(0);
        command.spawn().map(Self).map_err(failed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before its input ends: the machines are their owners' to end.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::run_dir::record_cgroup;

    #[test]
    fn groups_of_all_machines_are_killed_when_the_input_ends_and_no_sooner() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(&root.path().join("with a space")).unwrap();
        let [one, two, bare] = ["vm-1", "vm-2", "vm-3"].map(|id| run_dir.machine(id).unwrap());
        let groups = [&one, &two].map(|machine| {
            let group = root.path().join(machine.path().file_name().unwrap());
            fs::create_dir(&group).unwrap();
            record_cgroup(machine.path(), &group).unwrap();
            group.join("cgroup.kill")
        });
        let mut guard = Guard::start(&run_dir).unwrap();
        assert!(guard.0.try_wait().unwrap().is_none());
        drop(guard);
        assert!(!groups[0].exists(), "one that is dropped kills nothing");

        let mut guard = Guard::start(&run_dir).unwrap();
        drop(guard.0.stdin.take());
        guard.0.wait().unwrap();
        for group in &groups {
            assert_eq!(fs::read_to_string(group).unwrap(), "1\n");
            fs::remove_dir_all(group.parent().unwrap()).unwrap();
        }
        drop((one, two, bare));
    }
}
