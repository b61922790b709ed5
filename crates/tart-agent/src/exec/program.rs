//! Finding a program within a tree, as `execvp` would from inside it.

use rustix::fs::{FileType, Mode, OFlags};
use tart_proto::message::Failure;

use crate::{failure, tree::Tree};

/// Searched if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path of `program` within the tree. `search` is the `PATH` of the command, `cwd` an absolute directory.
pub(super) fn find(tree: &Tree, program: &str, search: Option<&str>, cwd: &str) -> Result<String, Failure> {
    if program.is_empty() {
        return Err(failure::invalid("the command has no program"));
    }
    let mut problem = None;
    for path in candidates(program, search.unwrap_or(DEFAULT_PATH), cwd) {
        match usable(tree, &path) {
            Ok(()) => return Ok(path),
            // As execvp: a match that may not be run is reported only if no later directory has a better one.
            Err(Some(failure)) => problem = problem.or(Some(failure)),
            Err(None) => {}
        }
    }
    Err(problem.unwrap_or_else(|| {
        failure::not_found(if program.contains('/') {
            format!("no file `{program}` in the image")
        } else {
            format!("no program `{program}` in the image (searched {})", search.unwrap_or(DEFAULT_PATH))
        })
    }))
}

fn candidates(program: &str, search: &str, cwd: &str) -> Vec<String> {
    let absolute = |path: String| if path.starts_with('/') { path } else { format!("{cwd}/{path}") };
    if program.contains('/') {
        return vec![absolute(program.to_owned())];
    }
    let in_directory = |directory: &str| match directory {
        "" => absolute(program.to_owned()),
        directory => absolute(format!("{directory}/{program}")),
    };
    search.split(':').map(in_directory).collect()
}

/// `Err(None)` if there is nothing of that name.
fn usable(tree: &Tree, path: &str) -> Result<(), Option<Failure>> {
    let Ok(fd) = tree.open(path, OFlags::PATH) else { return Err(None) };
    let stat = rustix::fs::fstat(&fd)
        .map_err(|e| Some(failure::system(format!("cannot look at the program `{path}`"), e)))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Some(failure::denied(format!("cannot run `{path}`: it is not a regular file"))));
    }
    let any_execute = Mode::XUSR | Mode::XGRP | Mode::XOTH;
    if !Mode::from_raw_mode(stat.st_mode).intersects(any_execute) {
        return Err(Some(failure::denied(format!("cannot run `{path}`: it is not executable"))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use tart_proto::message::FailureKind;

    use super::*;

    fn image() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for (path, mode) in [("bin/sh", 0o755), ("opt/sh", 0o644), ("opt/plain", 0o644), ("work/run", 0o755)]
        {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "#!").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("/bin", dir.path().join("sbin")).unwrap();
        let tree = Tree::open_at(dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn the_path_is_searched_in_order_through_links_of_the_tree() {
        let (_dir, tree) = image();
        assert_eq!(find(&tree, "sh", Some("/nowhere:/sbin:/bin"), "/").unwrap(), "/sbin/sh");
        assert_eq!(find(&tree, "sh", None, "/").unwrap(), "/sbin/sh");
    }

    #[test]
    fn an_unusable_match_gives_way_to_a_later_one() {
        let (_dir, tree) = image();
        assert_eq!(find(&tree, "sh", Some("/opt:/bin"), "/").unwrap(), "/bin/sh");
        let failure = find(&tree, "plain", Some("/opt:/bin"), "/").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Denied);
        assert_eq!(failure.message, "cannot run `/opt/plain`: it is not executable");
    }

    #[test]
    fn relative_programs_start_at_the_working_directory() {
        let (_dir, tree) = image();
        assert_eq!(find(&tree, "./run", None, "/work").unwrap(), "/work/./run");
        assert_eq!(find(&tree, "run", Some("/bin:"), "/work").unwrap(), "/work/run");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let (_dir, tree) = image();
        let failure = find(&tree, "bash", Some("/bin"), "/").unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert_eq!(failure.message, "no program `bash` in the image (searched /bin)");
        assert_eq!(
            find(&tree, "/bin/bash", None, "/").unwrap_err().message,
            "no file `/bin/bash` in the image"
        );
        assert_eq!(find(&tree, "/bin", None, "/").unwrap_err().kind, FailureKind::Denied);
        assert_eq!(find(&tree, "", None, "/").unwrap_err().kind, FailureKind::Invalid);
    }
}
