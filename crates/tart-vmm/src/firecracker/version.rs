//! Versions of Firecracker, and what each understands. Pure.
//!
//! Firecracker answers a field that it does not know with an error, so what is sent depends on the version
//! (microvm.md 1.1 and 1.7).

use std::fmt;

/// The oldest that Tart drives.
const OLDEST: Version = Version { major: 1, minor: 7, patch: 0 };

/// A version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

/// What a version understands beyond what 1.7 does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// `PUT /serial`.
    pub(super) serial: bool,
    /// `rate_limiter` of it, and `mtu` of network interfaces.
    pub(super) serial_limiter: bool,
    pub(super) mtu: bool,
    /// Kernels need not be uncompressed ELF files.
    pub(super) bzimage: bool,
    /// `huge_pages: Transparent`.
    pub(super) transparent_pages: bool,
    /// `network_overrides` when a snapshot is loaded.
    pub(super) network_overrides: bool,
    /// `vsock_override` and `clock_realtime` when a snapshot is loaded.
    pub(super) vsock_override: bool,
    /// Snapshots can be used: 1.16.0 loses vsock in them.
    pub(super) snapshots: bool,
    /// `free_page_reporting` of the balloon.
    pub(super) page_reporting: bool,
    /// Guests find their devices by ACPI, not only by the kernel's command line.
    pub(super) acpi: bool,
    /// The jailer's copy of Firecracker belongs to the jailed user, not to root.
    pub(super) own_copy: bool,
}

impl Version {
    /// Reads what `firecracker --version` or `GET /version` say: `Firecracker v1.16.1` or `1.17.0-dev`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words = text.split_whitespace().map(|word| word.strip_prefix('v').unwrap_or(word));
        words.filter_map(Self::read).next()
    }

    fn read(word: &str) -> Option<Self> {
        let release = word.split(['-', '+']).next()?;
        let mut parts = release.split('.').map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        Some(Self { major, minor, patch })
    }

    /// Why this version cannot be driven.
    #[must_use]
    pub fn problem(self) -> Option<String> {
        if self.major != OLDEST.major {
            Some(format!("it is Firecracker {self}, and Tart drives 1.x"))
        } else if self < OLDEST {
            Some(format!("it is Firecracker {self}, which is older than {OLDEST}"))
        } else {
            None
        }
    }

    pub(super) fn features(self) -> Features {
        let since = |minor| self.minor >= minor;
        Features {
            serial: since(14),
            serial_limiter: since(16),
            mtu: since(16),
            bzimage: since(17),
            transparent_pages: since(17),
            network_overrides: since(12),
            vsock_override: since(16),
            snapshots: since(13) && (self.minor, self.patch) != (16, 0),
            page_reporting: since(14),
            acpi: since(8),
            own_copy: since(15),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_are_found_in_what_firecracker_says() {
        assert_eq!(version("Firecracker v1.16.1\n\n2026-01-01T00:00:00 [x] exit").to_string(), "1.16.1");
        assert_eq!(version("1.17.0-dev").to_string(), "1.17.0");
        for text in ["", "Firecracker", "v1.2", "1.2.3.4", "1.99999.0", "1.a.0"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_versions_that_tart_knows_are_driven() {
        assert_eq!(version("1.7.0").problem(), None);
        assert_eq!(version("1.40.0").problem(), None);
        insta::assert_snapshot!(version("1.6.9").problem().unwrap(), @"it is Firecracker 1.6.9, which is older than 1.7.0");
        insta::assert_snapshot!(version("2.0.0").problem().unwrap(), @"it is Firecracker 2.0.0, and Tart drives 1.x");
    }

    #[test]
    fn each_version_understands_what_the_last_did() {
        assert_eq!(version("1.7.0").features(), Features::default());
        assert!(version("1.8.0").features().acpi);
        let features = version("1.15.1").features();
        assert!(features.serial && features.network_overrides && features.snapshots && !features.mtu);
        assert!(!version("1.16.0").features().snapshots, "vsock is lost in its snapshots");
        assert!(version("1.16.1").features().snapshots);
        assert!(version("1.17.0").features().bzimage);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,40}") {
            let _any = Version::parse(&text);
        }
    }
}
