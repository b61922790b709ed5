//! Reads the facts of this host.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;
use tart_config::MicroVm;
use tart_vmm::{HelperPrograms, VmmError};

use super::facts::{Cgroup, Cpu, Device, Facts, Forwarding, Program, User};

/// Where cgroup v2 is mounted, as systemd and containers have it.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The facts of this host for a configuration. `firecracker` is the program; the service runs as `user`, or as who asks.
///
/// # Errors
/// There is no such user.
pub(super) async fn facts(
    config: &MicroVm,
    firecracker: PathBuf,
    user: Option<&str>,
) -> Result<Facts, String> {
    let (passwd, groups) = (read("/etc/passwd"), read("/etc/group"));
    let own = rustix::process::geteuid().as_raw();
    let user = match user {
        Some(name) => named(&passwd, &groups, name).ok_or_else(|| {
            format!("there is no user {name}: make it with `systemd-sysusers` or `useradd --system {name}`")
        })?,
        None => current(&passwd, own),
    };
    let kvm = device(Path::new("/dev/kvm"));
    let open = |path| fs::File::options().read(true).write(true).open(path).map(drop);
    let kvm_open = (user.uid == own).then(|| open("/dev/kvm").map_err(|error| error.to_string()));
    let jailer = tart_runner::named_jailer(config)
        .or_else(|| tart_vmm::installed_jailer(&firecracker))
        .unwrap_or_else(|| firecracker.with_file_name("jailer"));
    let helper = tart_runner::root_helper_socket(config, user.uid == 0);
    let (firecracker, jailer) = match &helper {
        // It listens to its user only, and has programs of its own.
        Some(socket) if user.uid == own => of_helper(HelperPrograms::ask(socket).await),
        _ => (program(firecracker), program(jailer)),
    };
    let userfaultfd = device(Path::new("/dev/userfaultfd"));
    let first = u64::from(config.uid_base);
    let mut taken_uids = accounts(&passwd);
    taken_uids.extend(subordinate(&read("/etc/subuid")));
    Ok(Facts {
        cpu: cpu(&read("/proc/cpuinfo")),
        kvm_modules: ["kvm_intel", "kvm_amd", "kvm_pvm"]
            .into_iter()
            .filter(|module| Path::new("/sys/module").join(module).exists())
            .map(str::to_owned)
            .collect(),
        kvm,
        kvm_open,
        firecracker,
        jailer,
        nft: program("nft".into()),
        tun: device(Path::new("/dev/net/tun")),
        forwarding: forwarding(),
        cgroup: cgroup(&read("/proc/self/cgroup")),
        huge_pages: (huge_pages("nr_hugepages"), huge_pages("free_hugepages")),
        transparent_pages: chosen(&read("/sys/kernel/mm/transparent_hugepage/enabled"))
            .is_some_and(|word| word != "never"),
        userfaultfd: user.uid == 0
            || read("/proc/sys/vm/unprivileged_userfaultfd").trim() == "1"
            || (user.uid == own && open("/dev/userfaultfd").is_ok())
            || userfaultfd.is_for(&user)
            // In jails it is their users'.
            || helper.is_some() && userfaultfd.exists(),
        helper,
        swap: swap(&read("/proc/meminfo")),
        ksm: read("/sys/kernel/mm/ksm/run").trim() == "1",
        smt: read("/sys/devices/system/cpu/smt/active").trim() == "1",
        uids: first..first + u64::from(config.uid_count),
        taken_uids,
        user,
    })
}

/// A small file of the kernel or the host; nothing if it cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn cpu(text: &str) -> Cpu {
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag| flags.split_whitespace().any(|word| word == flag);
    Cpu { vmx: has("vmx"), svm: has("svm"), virtual_machine: has("hypervisor") }
}

fn device(path: &Path) -> Device {
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_char_device() => {
            Device::Present { mode: found.mode(), uid: found.uid(), gid: found.gid() }
        }
        Ok(_) => Device::Other,
        Err(_) => Device::Missing,
    }
}

fn program(path: PathBuf) -> Program {
    let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    let said = match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("`--version` failed ({})", output.status)),
        Err(error) => Err(error.to_string()),
    };
    Program { path, said }
}

/// The programs that the root helper has, and what they say, or why it has none.
fn of_helper(answer: Result<HelperPrograms, VmmError>) -> (Program, Program) {
    match answer {
        Ok(HelperPrograms { firecracker, version, jailer, problem }) => {
            let said = problem.map_or_else(|| Ok(version.to_string()), Err);
            (Program { path: firecracker, said: said.clone() }, Program { path: jailer, said })
        }
        Err(error) => {
            let reason =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let missing = |name: &str| Program { path: name.into(), said: Err(reason.clone()) };
            (missing("firecracker"), missing("jailer"))
        }
    }
}

/// Whether a file or directory can be written by who asks.
fn writable(path: impl AsRef<Path>) -> bool {
    rustix::fs::access(path.as_ref(), Access::WRITE_OK).is_ok()
}

fn forwarding() -> Forwarding {
    if read("/proc/sys/net/ipv4/ip_forward").trim() == "1" {
        Forwarding::On
    } else if writable("/proc/sys/net/ipv4/ip_forward") {
        Forwarding::Possible
    } else {
        Forwarding::Fixed
    }
}

fn cgroup(own: &str) -> Cgroup {
    let root = Path::new(CGROUPS);
    let Some(group) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Cgroup::default();
    };
    let controllers = fs::read_to_string(root.join(group).join("cgroup.controllers"));
    Cgroup {
        unified: controllers.is_ok(),
        controllers: controllers.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        writable: writable(root.join(group)),
    }
}

fn huge_pages(file: &str) -> u64 {
    read(&format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{file}")).trim().parse().unwrap_or(0)
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

/// Bytes of swap space.
fn swap(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("SwapTotal:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
    kib.saturating_mul(1024)
}

/// Lines of a file such as `/etc/passwd` as their fields.
fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
}

/// A user of the host's files, with all groups.
fn named(passwd: &str, groups: &str, name: &str) -> Option<User> {
    let entry = fields(passwd).find(|entry| entry.first() == Some(&name))?;
    let uid = entry.get(2)?.parse().ok()?;
    let mut gids: Vec<u32> = entry.get(3).and_then(|gid| gid.parse().ok()).into_iter().collect();
    gids.extend(fields(groups).filter_map(|group| {
        let members = group.get(3)?;
        members.split(',').any(|member| member == name).then(|| group.get(2)?.parse::<u32>().ok())?
    }));
    Some(User { name: name.to_owned(), uid, gids })
}

/// Who asks.
fn current(passwd: &str, uid: u32) -> User {
    let entry = fields(passwd).find(|entry| entry.get(2).and_then(|text| text.parse().ok()) == Some(uid));
    let name = entry.and_then(|entry| entry.first().map(|name| (*name).to_owned()));
    let groups = rustix::process::getgroups().unwrap_or_default();
    let mut gids: Vec<u32> = groups.into_iter().map(rustix::process::Gid::as_raw).collect();
    gids.push(rustix::process::getegid().as_raw());
    User { name: name.unwrap_or_else(|| format!("uid {uid}")), uid, gids }
}

/// The users of the host.
fn accounts(passwd: &str) -> Vec<(String, Range<u64>)> {
    let account = |entry: Vec<&str>| {
        let uid: u64 = entry.get(2)?.parse().ok()?;
        Some(((*entry.first()?).to_owned(), uid..uid + 1))
    };
    fields(passwd).filter_map(account).collect()
}

/// Ranges of users that accounts may use in namespaces.
fn subordinate(subuid: &str) -> Vec<(String, Range<u64>)> {
    let range = |entry: Vec<&str>| {
        let [owner, first, count] = entry.as_slice() else { return None };
        let first: u64 = first.parse().ok()?;
        Some(((*owner).to_owned(), first..first.checked_add(count.parse().ok()?)?))
    };
    fields(subuid).filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_say_what_they_can() {
        let seen = cpu("processor : 0\nflags : fpu vmx hypervisor\n");
        assert_eq!(seen, Cpu { vmx: true, svm: false, virtual_machine: true });
        assert_eq!(cpu("flags : fpu vmxnet"), Cpu::default());
    }

    #[test]
    fn users_have_the_groups_of_both_files() {
        let passwd = "root:x:0:0::/root:/bin/sh\ntart:x:990:980::/var/lib/tart:/bin/false\nbroken\n";
        let groups = "kvm:x:106:someone,tart\nother:x:107:tartan\nbroken:x\n";
        let user = named(passwd, groups, "tart").unwrap();
        assert_eq!(user, User { name: "tart".into(), uid: 990, gids: vec![980, 106] });
        assert_eq!(named(passwd, groups, "tartan"), None);
        assert_eq!(accounts(passwd), [("root".to_owned(), 0..1), ("tart".to_owned(), 990..991)]);
        let ranges = subordinate("# x\na:100000:65536\nb:1\nc:1:99999999999999999999\n");
        assert_eq!(ranges, [("a".to_owned(), 100_000..165_536)]);
    }

    #[test]
    fn settings_of_the_kernel_are_read() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen(""), None);
        assert_eq!(swap("MemTotal: 1 kB\nSwapTotal:       2 kB\n"), 2048);
        assert_eq!(swap(""), 0);
    }

    #[tokio::test]
    async fn this_host_has_facts() {
        let facts = facts(&MicroVm::default(), "/nonexistent/firecracker".into(), None).await.unwrap();
        assert!(facts.firecracker.said.is_err());
        assert!(!facts.taken_uids.is_empty());
        let error = super::facts(&MicroVm::default(), "x".into(), Some("no-such-user")).await.unwrap_err();
        insta::assert_snapshot!(error, @"there is no user no-such-user: make it with `systemd-sysusers` or `useradd --system no-such-user`");
    }
}
