//! Finding and downloading packages of the distribution, as any user.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{AssetError, IoContext, Result},
    program::{APT_CACHE, APT_GET},
};

/// A package in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.version)
    }
}

impl Package {
    /// Reads `name=version`. Neither can be an option of a program or lead to another directory.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, version) = text.split_once('=')?;
        let sound = |text: &str, extra: &[u8]| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
        };
        let good = sound(name, b"+-.") && sound(version, b"+-.~:");
        good.then(|| Self { name: name.to_owned(), version: version.to_owned() })
    }
}

/// The first package that the distribution has, or the one it stands for.
pub(crate) fn best(candidates: &[&str]) -> Result<Package> {
    for candidate in candidates {
        let Ok(shown) = show(candidate) else { continue };
        let real = kernel_dependency(&shown).unwrap_or_else(|| (*candidate).to_owned());
        // Some mirrors lack the signed variant for a while. Guests check no signature.
        for name in [real.clone(), format!("{real}-unsigned")] {
            let package = show(&name)
                .ok()
                .and_then(|shown| Package::parse(&format!("{name}={}", field(&shown, "Version")?)));
            if let Some(package) = package {
                return Ok(package);
            }
        }
    }
    Err(AssetError::NoKernelPackage { tried: candidates.join(", ") })
}

fn show(name: &str) -> Result<String> {
    APT_CACHE.output(APT_CACHE.command(["show", "--no-all-versions", name]))
}

fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
}

/// The kernel that a package without files depends on.
fn kernel_dependency(record: &str) -> Option<String> {
    let names = field(record, "Depends")?.split([',', '|']).filter_map(|item| item.split_whitespace().next());
    let kernel = |name: &&str| {
        name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    names.into_iter().find(kernel).map(str::to_owned)
}

/// Downloads a package; apt checks it against the signed lists.
pub(crate) fn download(package: &Package, directory: &Path) -> Result<PathBuf> {
    let temporary = tempfile::tempdir_in(directory).at("make a directory in", directory)?;
    let mut args = vec!["-q".to_owned()];
    if rustix::process::geteuid().is_root() {
        // Apt's own user cannot write here, and it would warn about that.
        args.extend(["-o", "APT::Sandbox::User=root"].map(str::to_owned));
    }
    args.extend(["download".to_owned(), package.to_string()]);
    let mut command = APT_GET.command(args);
    command.current_dir(temporary.path());
    APT_GET.output(command)?;
    for entry in fs::read_dir(temporary.path()).at("list", temporary.path())? {
        let file = entry.at("list", temporary.path())?.path();
        if file.extension().is_some_and(|end| end == "deb") {
            let path = directory.join(format!("{}.deb", package.name));
            fs::rename(&file, &path).at("store", &path)?;
            return Ok(path);
        }
    }
    Err(AssetError::malformed(format!("the package {package}"), "apt-get downloaded nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_files_leads_to_the_kernel() {
        let record = "Package: linux-image-6.12-cloud-amd64\nVersion: 6.12.9-1\nDepends: foo (>= 1), linux-image-6.12.9+deb12-cloud-amd64 (= 6.12.9-1)\n";
        assert_eq!(kernel_dependency(record).unwrap(), "linux-image-6.12.9+deb12-cloud-amd64");
        assert_eq!(field(record, "Version"), Some("6.12.9-1"));
        assert_eq!(kernel_dependency("Depends: kmod, linux-base"), None);
    }

    #[test]
    fn only_sound_names_are_packages() {
        let package = Package::parse("linux-image=1:6.12.9-1~deb12u1").unwrap();
        assert_eq!(package.to_string(), "linux-image=1:6.12.9-1~deb12u1");
        for text in ["", "linux", "-o=1", "a/b=1", "a=-1", "a=1/2", "a b=1"] {
            assert_eq!(Package::parse(text), None, "{text}");
        }
    }
}
