//! Which namespaces a runner was given: it may have its machines start in these, and in no others of the host.

use std::{
    collections::HashSet,
    io,
    os::fd::AsFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::fstat;

/// What tells a namespace from others: its file's device and number.
type Key = (u64, u64);

/// The namespaces of guests that are connected.
#[derive(Debug, Default)]
pub(super) struct Loans(Mutex<HashSet<Key>>);

/// One of them, until this is dropped. Its own descriptor has to be open for as long, or another could get its number.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    loans: &'a Loans,
    key: Key,
}

impl Loans {
    fn keys(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lend(&self, namespace: impl AsFd) -> io::Result<Lent<'_>> {
        let key = key(namespace)?;
        self.keys().insert(key);
        Ok(Lent { loans: self, key })
    }

    pub(super) fn has(&self, namespace: impl AsFd) -> bool {
        key(namespace).is_ok_and(|key| self.keys().contains(&key))
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.loans.keys().remove(&self.key);
    }
}

fn key(namespace: impl AsFd) -> io::Result<Key> {
    let about = fstat(namespace)?;
    Ok((about.st_dev, about.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_namespace_is_known_until_it_is_given_back() {
        let loans = Loans::default();
        let open = |name: &str| File::open(format!("/proc/self/ns/{name}")).unwrap();
        let lent = loans.lend(open("net")).unwrap();
        assert!(loans.has(open("net")) && !loans.has(open("mnt")));
        drop(lent);
        assert!(!loans.has(open("net")));
    }
}
