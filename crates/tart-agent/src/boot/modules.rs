//! Loading the kernel's modules from the initramfs: what every guest needs at its start, the rest when the kernel
//! asks for it by starting [`LOADER`].

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rustix::io::Errno;

/// Where the modules are; absent with a kernel that has everything built in.
pub const DIRECTORY: &str = "/modules";

/// The program that the kernel asks for modules: the agent itself.
pub(super) const LOADER: &str = "/init";

/// Lists the modules of the start, one file name per line, each after those it needs.
const ORDER: &str = "order";

/// Lists the modules that are loaded on demand, one per line: the names it is asked for by, a tab, and the files to
/// load in order; both divided by spaces. A name may end in `*`.
const DEMAND: &str = "demand";

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

/// Loads what the kernel asks for: a module's name or one of its aliases.
///
/// # Errors
/// If there is no such module, or the kernel refuses one.
pub fn load_on_demand(directory: &Path, wanted: &str) -> io::Result<()> {
    let list = fs::read_to_string(directory.join(DEMAND))?;
    let files = find(&list, wanted).ok_or(io::ErrorKind::NotFound)?;
    files.split_whitespace().try_for_each(|name| insert(&directory.join(name)))
}

/// The name that the kernel asks its loader for, if these are the loader's arguments: `-q -- name`.
pub fn asked_for<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut arguments = arguments.into_iter().skip_while(|argument| *argument != "--");
    arguments.nth(1)
}

fn find<'a>(list: &'a str, wanted: &str) -> Option<&'a str> {
    let wanted = wanted.replace('-', "_");
    let fits = |name: &str| match name.strip_suffix('*') {
        Some(start) => wanted.starts_with(start),
        None => wanted == name,
    };
    let lines = list.lines().filter_map(|line| line.split_once('\t'));
    lines.filter(|(names, _)| names.split(' ').any(fits)).map(|(_, files)| files).next()
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
    fn a_module_is_found_by_its_names() {
        let list = "veth rtnl_link_veth\tveth.ko\nloop block_major_7_*\tcdrom.ko loop.ko\n";
        assert_eq!(find(list, "rtnl-link-veth"), Some("veth.ko"));
        assert_eq!(find(list, "block-major-7-0"), Some("cdrom.ko loop.ko"));
        assert_eq!(find(list, "vet"), None);
        assert_eq!(asked_for(["/init", "-q", "--", "veth"]), Some("veth"));
        assert_eq!(asked_for(["/init", "veth"]), None);
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
