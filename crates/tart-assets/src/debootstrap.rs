//! Root file systems of the distribution, made by mmdebstrap. The arguments are pure.

use crate::{model::Kind, program::Program, store::key_of};

/// The release that disks are made of.
const SUITE: &str = "bookworm";

/// Changes with anything that is not an argument.
const LAYOUT: &str = "1";

/// What nobody reads in a job.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
];

/// A disk to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    /// What it is called in messages.
    pub(crate) text: &'static str,
    variant: &'static str,
    packages: &'static [&'static str],
    /// Shell commands with the root as `$1`.
    hooks: &'static [&'static str],
}

impl Recipe {
    /// The tools of a job's stages: everything but the user's own steps runs from it.
    pub(crate) const fn helper() -> Self {
        Self {
            kind: Kind::Helper,
            name: "helper",
            text: "the helper disk",
            variant: "essential",
            packages: &["ca-certificates", "git", "git-lfs", "nftables", "openssh-client", "unzip", "zip"],
            hooks: &[
                // Git's scripts for jobs need none of Perl's library; `perl-base` has its own copy.
                r#"rm -rf "$1"/usr/lib/x86_64-linux-gnu/perl/5.* "$1"/usr/share/perl/5.* "$1"/usr/share/perl5 "$1"/usr/lib/x86_64-linux-gnu/libperl.so.*"#,
                // Git-lfs writes its filters in random order. Jobs configure them anyway.
                r#"rm -f "$1"/etc/gitconfig"#,
                r#"rm -rf "$1"/var/lib/dpkg "$1"/var/cache/* "$1"/var/log/* "$1"/usr/share/zoneinfo"#,
                MOUNT_POINTS,
            ],
        }
    }

    /// What jobs without an image run in: Debian as its users know it, with the usual tools of CI jobs.
    pub(crate) const fn default_image() -> Self {
        Self {
            kind: Kind::Image,
            name: crate::store::DEFAULT_IMAGE,
            text: "the default image",
            variant: "minbase",
            packages: &[
                "ca-certificates",
                "curl",
                "git",
                "make",
                "procps",
                "python3-minimal",
                "unzip",
                "xz-utils",
            ],
            hooks: &[
                // Installing a package in a job must not start its services.
                r#"printf '#!/bin/sh\nexit 101\n' > "$1"/usr/sbin/policy-rc.d && chmod 755 "$1"/usr/sbin/policy-rc.d"#,
                r#"rm -rf "$1"/var/cache/* "$1"/var/log/*"#,
                MOUNT_POINTS,
            ],
        }
    }

    /// Names the recipe, not its result: packages get newer.
    pub(crate) fn key(&self) -> String {
        let args = self.arguments(Mode::Root);
        key_of(&std::iter::once(LAYOUT).chain(args.iter().map(|arg| &**arg)).collect::<Vec<_>>())
    }

    /// Arguments of mmdebstrap that writes a tar stream to standard output.
    pub(crate) fn arguments(&self, mode: Mode) -> Vec<String> {
        let mut args = vec![
            format!("--variant={}", self.variant),
            format!("--mode={}", mode.as_str()),
            "--format=tar".to_owned(),
            "--aptopt=Apt::Install-Recommends \"false\"".to_owned(),
            format!("--include={}", self.packages.join(",")),
        ];
        args.extend(LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
        args.extend(self.hooks.iter().map(|hook| format!("--customize-hook={hook}")));
        args.extend([SUITE.to_owned(), "-".to_owned()]);
        args
    }
}

/// Directories and files that the agent mounts on in a read-only tree.
const MOUNT_POINTS: &str =
    r#"mkdir -p "$1"/builds "$1"/cache && touch "$1"/etc/hosts "$1"/etc/hostname "$1"/etc/resolv.conf"#;

/// How mmdebstrap gets a root file system with other users' files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is root.
    Root,
    /// User namespaces and `newuidmap`.
    Unshare,
    /// A library that pretends.
    Fakechroot,
}

impl Mode {
    /// The best mode for a user, if any would work.
    pub(crate) fn choose(is_root: bool, is_installed: impl Fn(&str) -> bool) -> Option<Self> {
        match is_root {
            true => Some(Self::Root),
            false if is_installed("newuidmap") => Some(Self::Unshare),
            false if is_installed("fakechroot") && is_installed("fakeroot") => Some(Self::Fakechroot),
            false => None,
        }
    }

    /// The best mode here.
    pub(crate) fn here() -> Option<Self> {
        Self::choose(rustix::process::geteuid().is_root(), Program::is_installed)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Unshare => "unshare",
            Self::Fakechroot => "fakechroot",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_disk_is_made_of_few_packages() {
        insta::assert_snapshot!(Recipe::helper().arguments(Mode::Unshare).join("\n"), @r#"
        --variant=essential
        --mode=unshare
        --format=tar
        --aptopt=Apt::Install-Recommends "false"
        --include=ca-certificates,git,git-lfs,nftables,openssh-client,unzip,zip
        --dpkgopt=path-exclude=/usr/share/doc/*
        --dpkgopt=path-exclude=/usr/share/man/*
        --dpkgopt=path-exclude=/usr/share/info/*
        --dpkgopt=path-exclude=/usr/share/locale/*
        --dpkgopt=path-exclude=/usr/share/lintian/*
        --dpkgopt=path-exclude=/usr/share/bug/*
        --customize-hook=rm -rf "$1"/usr/lib/x86_64-linux-gnu/perl/5.* "$1"/usr/share/perl/5.* "$1"/usr/share/perl5 "$1"/usr/lib/x86_64-linux-gnu/libperl.so.*
        --customize-hook=rm -f "$1"/etc/gitconfig
        --customize-hook=rm -rf "$1"/var/lib/dpkg "$1"/var/cache/* "$1"/var/log/* "$1"/usr/share/zoneinfo
        --customize-hook=mkdir -p "$1"/builds "$1"/cache && touch "$1"/etc/hosts "$1"/etc/hostname "$1"/etc/resolv.conf
        bookworm
        -
        "#);
    }

    #[test]
    fn recipes_have_different_keys() {
        assert_ne!(Recipe::helper().key(), Recipe::default_image().key());
    }

    #[test]
    fn the_mode_depends_on_the_user_and_the_tools() {
        let installed = |list: &'static [&'static str]| move |name: &str| list.contains(&name);
        assert_eq!(Mode::choose(true, installed(&[])), Some(Mode::Root));
        assert_eq!(Mode::choose(false, installed(&["newuidmap", "fakeroot"])), Some(Mode::Unshare));
        assert_eq!(Mode::choose(false, installed(&["fakechroot", "fakeroot"])), Some(Mode::Fakechroot));
        assert_eq!(Mode::choose(false, installed(&["fakechroot"])), None);
    }
}
