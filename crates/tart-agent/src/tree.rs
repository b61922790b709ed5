//! File trees, and paths that are resolved within them.
//!
//! An image is somebody else's file tree: `/var/run` may be a link to `/run`, and `/etc/resolv.conf` one to
//! anywhere. Every path of a request is therefore resolved by the kernel with the tree as its root
//! (`RESOLVE_IN_ROOT`), so that it means what a command in the tree would see.

use std::{
    borrow::Cow,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
    process::{Gid, Uid},
};
use tart_proto::message::{Failure, Root};

use crate::failure;

/// Longest chain of missing directories that is made.
const MAX_DEPTH: usize = 128;

/// How often a resolution is tried again after a rename elsewhere in the tree disturbed it.
const MAX_RACES: usize = 64;

/// Where the trees are.
#[derive(Debug, Clone)]
pub struct Trees {
    agent: PathBuf,
    helper: PathBuf,
    job: PathBuf,
    /// Holds a tree for each service, by number.
    services: PathBuf,
}

impl Trees {
    /// The trees of a guest, see [`Root::mount_point`].
    #[must_use]
    pub fn guest() -> Self {
        let path = |root: Root| PathBuf::from(&*root.mount_point());
        let services = path(Root::Service(0)).parent().map(Path::to_owned).unwrap_or_default();
        Self { agent: path(Root::Agent), helper: path(Root::Helper), job: path(Root::Job), services }
    }

    /// The trees at places of the caller's choice, for tests.
    #[must_use]
    pub fn at(agent: impl Into<PathBuf>, helper: impl Into<PathBuf>, job: impl Into<PathBuf>) -> Self {
        let job = job.into();
        Self { agent: agent.into(), helper: helper.into(), services: job.join("services"), job }
    }

    pub(crate) fn path(&self, root: Root) -> Cow<'_, Path> {
        match root {
            Root::Agent => Cow::Borrowed(&self.agent),
            Root::Helper => Cow::Borrowed(&self.helper),
            Root::Job => Cow::Borrowed(&self.job),
            Root::Service(number) => Cow::Owned(self.services.join(number.to_string())),
        }
    }

    pub(crate) fn open(&self, root: Root) -> Result<Tree, Failure> {
        Tree::open_at(&self.path(root))
    }

    /// The tree that an absolute path of the agent's namespace lies in, and the path within it.
    pub(crate) fn containing<'a>(&self, path: &'a str) -> (Root, &'a str) {
        for root in [Root::Job, Root::Helper] {
            match self.path(root).to_str().and_then(|tree| path.strip_prefix(tree)) {
                Some("") => return (root, "/"),
                Some(rest) if rest.starts_with('/') => return (root, rest),
                _ => {}
            }
        }
        self.within_service(path).unwrap_or((Root::Agent, path))
    }

    fn within_service<'a>(&self, path: &'a str) -> Option<(Root, &'a str)> {
        let rest = path.strip_prefix(self.services.to_str()?)?.strip_prefix('/')?;
        let (number, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some((Root::Service(number.parse().ok()?), if rest.is_empty() { "/" } else { rest }))
    }
}

/// An open tree.
#[derive(Debug)]
pub(crate) struct Tree {
    path: PathBuf,
    root: OwnedFd,
}

impl Tree {
    pub(crate) fn open_at(path: &Path) -> Result<Self, Failure> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failure::system(format!("cannot open the file tree at `{}`", path.display()), e))?;
        Ok(Self { path: path.to_owned(), root })
    }

    /// The top directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens an existing file or directory.
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut races = 0;
        loop {
            let opened = rustix::fs::openat2(
                &self.root,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            );
            match opened {
                Err(Errno::AGAIN | Errno::INTR) if races < MAX_RACES => races += 1,
                opened => return opened,
            }
        }
    }

    /// Contents of a small regular file, or `None` if there is none. A larger file is cut off at `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => std::fs::File::from(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut contents = Vec::new();
        file.take(limit).read_to_end(&mut contents)?;
        Ok(Some(contents))
    }

    /// Opens a directory; missing ones are made with mode 0755 and the given owner.
    pub(crate) fn directory(&self, path: &str, owner: (Uid, Gid)) -> rustix::io::Result<OwnedFd> {
        self.directory_at_depth(path, owner, 0)
    }

    fn directory_at_depth(&self, path: &str, owner: (Uid, Gid), depth: usize) -> rustix::io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) if depth < MAX_DEPTH => {}
            opened => return opened,
        }
        let Some((parent, name)) = split(path) else { return Err(Errno::NOENT) };
        let parent = self.directory_at_depth(parent, owner, depth + 1)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&parent, name, Some(owner.0), Some(owner.1), flags)?;
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// The path within the tree that an open file really has, free of links.
    pub(crate) fn real_path(&self, file: BorrowedFd<'_>) -> io::Result<String> {
        let seen = link_of(file)?;
        let root = link_of(self.root())?;
        let path = seen
            .strip_prefix(&root)
            .map_err(|_| io::Error::other("the file lies outside of its tree"))?
            .to_str()
            .ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
        Ok(format!("/{path}"))
    }

    /// Whether the tree's own file system is mounted read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        rustix::fs::statvfs(&self.path)
            .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    }
}

/// Directory and name of a path, or `None` if it has no name at its end.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    if matches!(name, "" | "." | "..") {
        return None;
    }
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

/// What `/proc` says an open file's path is.
fn link_of(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let link = rustix::fs::readlinkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(link.as_bytes())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn owner() -> (Uid, Gid) {
        (rustix::process::getuid(), rustix::process::getgid())
    }

    #[test]
    fn absolute_links_stay_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        std::fs::write(dir.path().join("run/x"), "inner").unwrap();
        symlink("/run", dir.path().join("var")).unwrap();
        symlink("../../../../run/x", dir.path().join("up")).unwrap();
        let tree = Tree::open_at(dir.path()).unwrap();
        assert_eq!(tree.read("/var/x", 100).unwrap().unwrap(), b"inner");
        assert_eq!(tree.read("/up", 100).unwrap().unwrap(), b"inner");
        assert_eq!(tree.read("/../../run/x", 3).unwrap().unwrap(), b"inn");
        assert!(tree.read("/nothing", 100).unwrap().is_none());
    }

    #[test]
    fn directories_are_made_behind_links_within_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        symlink("/run", dir.path().join("var")).unwrap();
        let tree = Tree::open_at(dir.path()).unwrap();
        let made = tree.directory("/var/a/b", owner()).unwrap();
        assert!(dir.path().join("run/a/b").is_dir());
        assert_eq!(tree.real_path(made.as_fd()).unwrap(), "/run/a/b");
    }

    #[test]
    fn a_fifo_or_a_dangling_link_is_no_directory_or_file() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/gone", dir.path().join("dangling")).unwrap();
        rustix::fs::mkfifoat(CWD, dir.path().join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let tree = Tree::open_at(dir.path()).unwrap();
        assert_eq!(tree.directory("/dangling/x", owner()).unwrap_err(), Errno::NOENT);
        assert!(tree.read("/fifo", 10).is_err());
    }

    #[test]
    fn a_path_belongs_to_the_tree_it_is_mounted_in() {
        let trees = Trees::guest();
        assert_eq!(trees.containing("/run/tart/job"), (Root::Job, "/"));
        assert_eq!(trees.containing("/run/tart/job/builds"), (Root::Job, "/builds"));
        assert_eq!(trees.containing("/run/tart/jobs"), (Root::Agent, "/run/tart/jobs"));
        assert_eq!(trees.containing("/run/tart/helper/etc"), (Root::Helper, "/etc"));
        assert_eq!(trees.containing("/run/tart/services/3"), (Root::Service(3), "/"));
        assert_eq!(trees.containing("/run/tart/services/12/etc/x"), (Root::Service(12), "/etc/x"));
        assert_eq!(trees.containing("/run/tart/services/x"), (Root::Agent, "/run/tart/services/x"));
    }

    #[test]
    fn a_path_splits_into_directory_and_name() {
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a//"), Some(("/", "a")));
        assert_eq!(split("/"), None);
        assert_eq!(split("/a/.."), None);
    }
}
