//! What keeps a machine's monitor apart from the host and from other machines, should a guest take it over: a user and
//! namespaces of its own, a root directory with its own files alone, and a cgroup with limits. Only root can give it the
//! first three. The kernel's Landlock rules ([`crate::confine`]) and the monitor's own filter of system calls come on
//! top.

mod cgroup;
mod jail;
mod users;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::VmmError;
use cgroup::Cgroups;
pub use cgroup::Limits;
pub(crate) use jail::Jail;
pub use users::Identity;
use users::{Reserved, Users};

/// What machines are kept apart with.
#[derive(Debug, Clone)]
pub struct IsolationOptions {
    /// First user and group that monitors run as.
    pub uid_base: u32,
    /// How many of them there are, which bounds the machines at a time; 0 runs all as this process's user.
    pub uid_count: u32,
    /// Where reserved users are locked. All runners of a host have to use the same directory, or two of their machines
    /// could have the same user.
    pub locks: PathBuf,
    /// The cgroup that those of machines are made in, as a path below the mount of version 2. Without it: the service's
    /// own if it was delegated, else `/tart` for root, else none.
    pub cgroup_parent: Option<String>,
}

/// What machines of a host are kept apart with.
#[derive(Debug, Default)]
pub struct Isolation {
    users: Option<Users>,
    cgroups: Option<Cgroups>,
    /// Why something is missing.
    notes: Vec<String>,
}

impl Isolation {
    /// Finds out what this process can do.
    ///
    /// # Errors
    /// [`VmmError::System`] if the configured cgroup cannot be used, or the directory of locks cannot be made.
    pub fn new(options: &IsolationOptions) -> Result<Self, VmmError> {
        let mut notes = Vec::new();
        let users = match users::missing(options.uid_count) {
            None => Some(Users::open(options)?),
            Some(reason) => {
                notes.push(format!("monitors run as this user: {reason}"));
                None
            }
        };
        let cgroups = match Cgroups::find(options.cgroup_parent.as_deref()) {
            Ok(cgroups) => Some(cgroups),
            Err(error) if options.cgroup_parent.is_some() => {
                return Err(VmmError::system("use the configured `cgroup_parent`", error));
            }
            Err(error) => {
                notes.push(format!("monitors have no cgroups of their own: {error}"));
                None
            }
        };
        Ok(Self { users, cgroups, notes })
    }

    /// Machines get users of their own.
    pub(crate) fn has_users(&self) -> bool {
        self.users.is_some()
    }

    /// Why machines cannot be jailed by Firecracker's jailer as users of their own, if they cannot.
    pub(crate) fn no_jails(&self) -> Option<String> {
        if self.has_users() { users::missing_for_jails() } else { Some(self.to_string()) }
    }

    /// Nothing of this process's: the root helper keeps machines apart.
    #[must_use]
    pub fn of_helper(socket: &Path) -> Self {
        Self { notes: vec![format!("by the root helper at {}", socket.display())], ..Self::default() }
    }

    /// Prepares what a machine's monitor is held by, until its end. The cgroup has to be removed then.
    pub(crate) fn confine(&self, machine: &str, limits: &Limits) -> Result<Confinement, VmmError> {
        let user = self.users.as_ref().map(Users::reserve).transpose()?;
        let cgroup = self.cgroups.as_ref().map(|cgroups| cgroups.create(machine, limits));
        let cgroup = cgroup
            .transpose()
            .map_err(|e| VmmError::system(format!("make a cgroup for virtual machine `{machine}`"), e))?;
        Ok(Confinement { user, cgroup })
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            self.users.iter().map(Users::to_string).chain(self.cgroups.iter().map(Cgroups::to_string));
        let parts: Vec<_> = parts.chain(self.notes.iter().cloned()).collect();
        f.write_str(&parts.join("; "))
    }
}

/// What holds one monitor. It outlives the monitor's process.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    user: Option<Reserved>,
    pub(crate) cgroup: Option<PathBuf>,
}

impl Confinement {
    /// Whom the monitor runs as, if not as this process's user.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.user.as_ref().map(Reserved::identity)
    }
}
