//! What a monitor may open. The kernel's Landlock holds it to that, whatever its guest makes of it, and also if it runs
//! as root: on a host without Landlock it is not held.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError,
};

/// What the rules are made for; of an older kernel they ask what that knows.
const RULES: ABI = ABI::V3;

/// What programs, their libraries and their firmware are in.
const SYSTEM: [&str; 6] = ["/usr", "/lib", "/lib64", "/bin", "/nix/store", "/etc/ld.so.cache"];

/// What libraries ask the kernel by.
const KERNEL: [&str; 2] = ["/proc", "/sys"];

/// Devices that a monitor opens itself.
const DEVICES: [&str; 4] = ["/dev/kvm", "/dev/null", "/dev/urandom", "/dev/random"];

/// What a process may open, besides what it inherits open.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allowed {
    /// Files, and directories with all that is below.
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
    /// Programs with their libraries and data, besides those of the system.
    pub(crate) installed: Vec<PathBuf>,
}

/// A place in the file system that a process may get to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where it is now.
    pub(crate) from: PathBuf,
    /// By which path the process finds it.
    pub(crate) path: PathBuf,
    pub(crate) access: PlaceAccess,
}

/// What a process may do in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceAccess {
    /// Read and run what is installed.
    System,
    /// Read what the kernel tells.
    Kernel,
    /// Use a device.
    Device,
    /// Read.
    Read,
    /// Read and write.
    Write,
}

impl Allowed {
    /// All places, those that every monitor needs among them. They need not be there.
    pub(crate) fn places(&self) -> Vec<Place> {
        let fixed = [
            (SYSTEM.as_slice(), PlaceAccess::System),
            (KERNEL.as_slice(), PlaceAccess::Kernel),
            (DEVICES.as_slice(), PlaceAccess::Device),
        ];
        let own = [
            (&self.installed, PlaceAccess::System),
            (&self.read, PlaceAccess::Read),
            (&self.write, PlaceAccess::Write),
        ];
        let place = |path: &Path, access| Place { from: path.to_owned(), path: path.to_owned(), access };
        let fixed = fixed
            .into_iter()
            .flat_map(|(paths, access)| paths.iter().map(move |path| (Path::new(path), access)));
        let own = own
            .into_iter()
            .flat_map(|(paths, access)| paths.iter().map(move |path| (path.as_path(), access)));
        fixed.chain(own).map(|(path, access)| place(path, access)).collect()
    }
}

/// Rules that a process can be put under.
#[derive(Debug)]
pub(crate) struct Rules(OwnedFd);

impl Rules {
    /// Makes the rules. `None` on a kernel without Landlock.
    pub(crate) fn new(places: &[Place]) -> io::Result<Option<Self>> {
        let rules = || -> Result<Option<OwnedFd>, RulesetError> {
            let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
            let all = AccessFs::from_all(RULES);
            let (read, write) = (AccessFs::from_read(RULES), all);
            let mut ruleset = ruleset.handle_access(all)?.create()?;
            for Place { from, access, .. } in places {
                let access = match access {
                    PlaceAccess::System | PlaceAccess::Kernel | PlaceAccess::Read => read,
                    PlaceAccess::Device | PlaceAccess::Write => write,
                };
                // What is not there cannot be opened either.
                let Ok(place) = PathFd::new(from) else { continue };
                ruleset = ruleset.add_rule(PathBeneath::new(place, fitting(from, access)))?;
            }
            Ok(ruleset.into())
        };
        Ok(rules().map_err(io::Error::other)?.map(Self))
    }

    /// Puts the calling process under the rules, for good; it may not gain privileges any more. Makes system calls only.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let fd = self.0.as_fd().as_raw_fd();
        #[expect(unsafe_code, reason = "no crate has this call in a form that may run between fork and exec")]
        // SAFETY: the call takes a descriptor, which `self` keeps open, and flags; it changes no memory.
        let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Rights of directories mean nothing for files.
fn fitting(path: &Path, access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    if path.is_dir() { access } else { access & AccessFs::from_file(RULES) }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::process::CommandExt, process::Command};

    use super::*;

    /// What a shell under the rules says.
    fn shell(allowed: &Allowed, script: &str) -> String {
        let rules = Rules::new(&allowed.places()).unwrap().expect("this kernel has Landlock");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        #[expect(unsafe_code, reason = "the standard library has no other way to prepare a child")]
        // SAFETY: the closure makes system calls only.
        unsafe {
            command.pre_exec(move || {
                rustix::thread::set_no_new_privs(true)?;
                rules.enter()
            });
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_process_under_rules_opens_what_they_allow_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["mine", "others"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), name).unwrap();
        }
        fs::write(at("image"), "image").unwrap();
        let allowed =
            Allowed { read: vec![at("image"), at("gone")], write: vec![at("mine")], ..Allowed::default() };
        let script = format!(
            "cd {}; cat mine/file image; echo new > mine/new && echo written; cat others/file /etc/shadow || echo no; \
             echo x > image || echo no; echo x > /etc/tart-test || echo no; ls others || echo no",
            dir.path().display()
        );
        assert_eq!(shell(&allowed, &script), "mineimagewritten\nno\nno\nno\nno\n");
        // The same without rules: that was Landlock's doing.
        let free = Command::new("/bin/cat").arg(at("others/file")).output().unwrap();
        assert_eq!(free.stdout, b"others");
    }
}
