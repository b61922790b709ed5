use std::{
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, Stdio},
};

use super::*;
use crate::IsolationOptions;

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

/// A runner's directory as a killed runner leaves it.
fn abandoned(root: &Path) -> (PathBuf, MachineDir) {
    let run_dir = RunDir::create(root).unwrap();
    let machine = run_dir.machine("vm-1").unwrap();
    let path = run_dir.path().to_owned();
    // Under another name, the directory stays while its lock goes, as when a process is killed.
    let copy = path.with_file_name(format!("{PREFIX}abandoned"));
    fs::rename(&path, &copy).unwrap();
    drop(run_dir);
    let machine_copy = MachineDir { path: copy.join("vm-1"), confinement: Confinement::default() };
    std::mem::forget(machine);
    (copy, machine_copy)
}

#[test]
fn directories_are_private_and_vanish_with_their_owner() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("deep/root");
    let run_dir = RunDir::create(&root).unwrap();
    let machine = run_dir.machine("vm-1").unwrap();
    // The machine's own user gets into its directory by other ways than through the others'.
    for (path, mode) in [(root.as_path(), 0o700), (run_dir.path(), 0o700), (machine.path(), 0o711)] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    for taken_or_no_name in ["vm-1", "../vm-2", "", "."] {
        assert!(run_dir.machine(taken_or_no_name).is_err(), "{taken_or_no_name}");
    }
    drop(machine);
    assert!(!run_dir.path().join("vm-1").exists());
    let path = run_dir.path().to_owned();
    drop(run_dir);
    assert!(!path.exists());
}

#[test]
fn leftovers_of_a_dead_runner_are_killed_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let (dir, machine) = abandoned(root.path());
    let mut child = sleeper();
    record(machine.path(), child.id()).unwrap();
    // The child is a zombie until it is waited for, which is the end that is waited for.
    let reaped = reap(root.path()).unwrap();
    assert_eq!(reaped, Reaped { processes: vec![child.id()], dirs: vec![dir.clone()], problems: vec![] });
    assert!(!dir.exists());
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_living_runner_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let run_dir = RunDir::create(root.path()).unwrap();
    let machine = run_dir.machine("vm-1").unwrap();
    let mut child = sleeper();
    record(machine.path(), child.id()).unwrap();
    assert_eq!(reap(root.path()).unwrap(), Reaped::default());
    assert!(machine.path().exists());
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_process_that_only_has_the_number_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let (dir, machine) = abandoned(root.path());
    let mut child = sleeper();
    fs::write(machine.path().join("process"), format!("{} 1 {}\n", child.id(), crate::host::boot_id()))
        .unwrap();
    assert_eq!(reap(root.path()).unwrap(), Reaped { dirs: vec![dir], ..Reaped::default() });
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn nothing_but_runners_directories_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let other = root.path().join("precious");
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::symlink(&other, root.path().join("runner-link")).unwrap();
    assert_eq!(reap(root.path()).unwrap(), Reaped::default());
    assert!(other.exists());
    assert_eq!(reap(&root.path().join("missing")).unwrap(), Reaped::default());
}

/// On the kernel's own hierarchy, with whatever controllers it has left.
#[test]
fn what_is_in_a_machines_cgroup_ends_with_its_directory() {
    let root = tempfile::tempdir().unwrap();
    let name = format!("tart-test-{}", std::process::id());
    let options = IsolationOptions {
        uid_base: 1,
        uid_count: 0,
        locks: root.path().join("uids"),
        cgroup_parent: Some(name.clone()),
    };
    let isolation = Isolation::new(&options).unwrap();
    let (one, other) = (RunDir::create(root.path()).unwrap(), RunDir::create(root.path()).unwrap());
    let (mut machine, mut twin) = (one.machine("job-1").unwrap(), other.machine("job-1").unwrap());
    let limits = Limits::of(1 << 30, 1 << 20, 2);
    machine.confine(&isolation, &limits).unwrap();
    twin.confine(&isolation, &limits).unwrap();
    assert_ne!(machine.cgroup(), twin.cgroup());
    drop(twin);

    let processes = File::options().write(true).open(machine.cgroup().unwrap().join("cgroup.procs")).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "cat /proc/self/cgroup; sleep 1000"]).stdout(Stdio::piped());
    #[expect(unsafe_code, reason = "the standard library has no other way to prepare a child")]
    // SAFETY: the closure makes a system call only.
    unsafe {
        command.pre_exec(move || Ok(rustix::io::write(&processes, b"0").map(drop)?));
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let own = lines.find_map(|line| line.unwrap().strip_prefix("0::/").map(str::to_owned)).unwrap();
    assert!(own.ends_with(&format!("{name}/job-1-{}-0", std::process::id())), "{own}");
    let cgroup = machine.cgroup().unwrap().to_owned();
    let limits = [("memory.max", "1074790400\n"), ("pids.max", "256\n"), ("cpu.max", "300000 100000\n")];
    for (file, expected) in limits.map(|(file, expected)| (cgroup.join(file), expected)) {
        // Where the host has left the controller to this hierarchy.
        assert!(!file.exists() || fs::read_to_string(&file).unwrap() == expected, "{}", file.display());
    }
    // Its processes are zombies until they are waited for, which counts as their end.
    drop(machine);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!cgroup.exists());
    fs::remove_dir(cgroup.parent().unwrap()).unwrap();
}
