//! Whether guests on Firecracker run in jails.

use std::path::{Path, PathBuf};

use tart_config::MicroVm;

use super::variable;

/// The variable that names the jailer.
const JAILER: &str = "TART_JAILER";

/// What is named for no jail.
const NONE: &str = "none";

/// The jailer, if guests on this Firecracker run in jails: the one that the configuration or the environment names, or for
/// root the one that is installed.
pub(super) fn program(config: &MicroVm, firecracker: &Path) -> Option<PathBuf> {
    let named = named(config);
    let is_root = rustix::process::geteuid().is_root();
    chosen(named, || tart_vmm::installed_jailer(firecracker).filter(|_| is_root))
}

/// The jailer that the configuration or the environment names.
#[must_use]
pub fn named(config: &MicroVm) -> Option<PathBuf> {
    config.jailer.clone().or_else(|| variable(JAILER))
}

/// Whether that is the word for no jail.
pub(super) fn is_none(named: &Path) -> bool {
    named == Path::new(NONE)
}

/// Why that is a risk, if there is no jail.
pub(super) fn note(jailer: Option<&Path>) -> Option<String> {
    let bare = jailer.is_none() && rustix::process::geteuid().is_root();
    bare.then(|| {
        "Firecracker runs as root and in no jail: install its jailer, or set `jailer` to its path".to_owned()
    })
}

fn chosen(named: Option<PathBuf>, installed: impl FnOnce() -> Option<PathBuf>) -> Option<PathBuf> {
    match named {
        Some(named) => Some(named).filter(|named| !is_none(named)),
        None => installed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_goes_before_what_is_installed() {
        let installed = || Some(PathBuf::from("/usr/bin/jailer"));
        assert_eq!(chosen(None, installed), installed());
        assert_eq!(chosen(None, || None), None);
        assert_eq!(chosen(Some("/opt/jailer".into()), installed), Some("/opt/jailer".into()));
        assert_eq!(chosen(Some("none".into()), installed), None);
    }
}
