//! Results of probes, kept in a file.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Acceleration;
use crate::{VmmError, host};

/// Results that are kept; the oldest go first.
const MAX_RESULTS: usize = 16;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// What a result depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    qemu: PathBuf,
    qemu_bytes: u64,
    qemu_mtime: i64,
    guest: String,
    /// Device number, owner and mode of `/dev/kvm`.
    kvm: String,
    host_kernel: String,
    host_cpu: String,
    /// Version of this crate: another one may run guests differently.
    tart: String,
}

impl Key {
    pub(super) fn of(qemu: &Path, guest: &str) -> Result<Self, VmmError> {
        let failed = |e| VmmError::system(format!("look at {}", qemu.display()), e);
        let program = fs::metadata(qemu).map_err(failed)?;
        let kvm = fs::metadata("/dev/kvm")
            .map(|kvm| format!("{} {} {} {:o}", kvm.rdev(), kvm.uid(), kvm.gid(), kvm.mode()))
            .unwrap_or_default();
        Ok(Self {
            qemu: qemu.canonicalize().map_err(failed)?,
            qemu_bytes: program.len(),
            qemu_mtime: program.mtime(),
            guest: guest.to_owned(),
            kvm,
            host_kernel: host::kernel_release(),
            host_cpu: host::cpuinfo("model name"),
            tart: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verdict {
    pub(super) acceleration: Acceleration,
    pub(super) reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: Key,
    verdict: Verdict,
}

#[derive(Debug)]
pub(super) struct Cache<'a>(&'a Path);

impl<'a> Cache<'a> {
    pub(super) fn at(path: &'a Path) -> Self {
        Self(path)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Verdict> {
        self.read().into_iter().find(|entry| entry.key == *key).map(|entry| entry.verdict)
    }

    /// Keeps a result. The file is replaced in one step; of two at once, one is lost and found again later.
    pub(super) fn put(&self, key: Key, verdict: &Verdict) -> io::Result<()> {
        let mut entries = self.read();
        entries.retain(|entry| entry.key != key);
        entries.insert(0, Entry { key, verdict: verdict.clone() });
        entries.truncate(MAX_RESULTS);
        let dir = self.0.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&serde_json::to_vec_pretty(&entries)?)?;
        file.persist(self.0)?;
        Ok(())
    }

    /// A file that cannot be read or understood is as good as none.
    fn read(&self) -> Vec<Entry> {
        if !self.0.metadata().is_ok_and(|file| file.len() <= MAX_FILE) {
            return Vec::new();
        }
        fs::read(self.0).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(guest: &str) -> Key {
        Key::of(Path::new("/bin/sh"), guest).unwrap()
    }

    #[test]
    fn results_are_found_by_all_they_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/kvm.json");
        let cache = Cache::at(&path);
        assert_eq!(cache.get(&key("a")), None);
        let verdict = Verdict { acceleration: Acceleration::Tcg, reason: "why".into() };
        cache.put(key("a"), &verdict).unwrap();
        assert_eq!(cache.get(&key("a")), Some(verdict.clone()));
        assert_eq!(cache.get(&key("b")), None);
        let other = Verdict { acceleration: Acceleration::Kvm, ..verdict };
        cache.put(key("a"), &other).unwrap();
        assert_eq!(cache.get(&key("a")), Some(other));
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kvm.json");
        let verdict = Verdict { acceleration: Acceleration::Tcg, reason: "why".into() };
        for n in 0..20 {
            Cache::at(&path).put(key(&n.to_string()), &verdict).unwrap();
        }
        assert_eq!(Cache::at(&path).read().len(), MAX_RESULTS);
        assert_eq!(Cache::at(&path).get(&key("19")), Some(verdict));
    }

    #[test]
    fn a_broken_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kvm.json");
        fs::write(&path, "{").unwrap();
        assert_eq!(Cache::at(&path).get(&key("a")), None);
    }
}
