//! Loading the kernel's modules from the initramfs.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rustix::io::Errno;

/// Where the modules are; absent with a kernel that has everything built in.
pub(super) const DIRECTORY: &str = "/modules";

/// Lists the modules, one file name per line, each after those it needs.
const ORDER: &str = "order";

/// Loads every module, and says what went wrong. One that fails does not keep the others from being tried: the guest
/// may do without it.
pub(super) fn load(directory: &Path) -> Vec<String> {
    let order = match fs::read_to_string(directory.join(ORDER)) {
        Ok(order) => order,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![format!("cannot read the list of modules: {error}")],
    };
    let problem =
        |name: &str| Some(format!("cannot load the module {name}: {}", insert(&directory.join(name)).err()?));
    names(&order).filter_map(problem).collect()
}

fn names(order: &str) -> impl Iterator<Item = &str> {
    order.lines().map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#'))
}

fn insert(path: &Path) -> io::Result<()> {
    match rustix::system::finit_module(File::open(path)?, c"", 0) {
        // Built in, or loaded by the kernel itself.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_directory_means_nothing_to_load() {
        assert!(load(Path::new("/nonexistent/modules")).is_empty());
    }

    #[test]
    fn every_failure_is_named_and_none_ends_the_list() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("order"), "# needed first\na.ko\n\nb.ko\n").unwrap();
        let problems = load(dir.path());
        assert_eq!(problems.len(), 2);
        assert!(problems[1].starts_with("cannot load the module b.ko: No such file"), "{}", problems[1]);
    }
}
