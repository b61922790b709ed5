//! Debian packages: an `ar` archive with a compressed tar archive of the files in it.

use std::io::{self, Read};

use crate::decompress;

/// Most entries of one package. The largest kernel packages have about 5000.
const MAX_ENTRIES: usize = 200_000;
const DATA: &[u8] = b"data.tar";

/// Reads every regular file of a package whose path (relative to the root, without a leading `./`) is `wanted`, and
/// hands it with its path to `take`. `limit` is for each file's bytes.
pub(crate) fn read(
    package: impl Read,
    limit: u64,
    wanted: impl Fn(&str) -> bool,
    mut take: impl FnMut(&str, Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let mut package = ar::Archive::new(package);
    // A package has three parts, but a long junk file could look like thousands.
    for _ in 0..16 {
        let Some(part) = package.next_entry() else { break };
        let part = part?;
        if !part.header().identifier().starts_with(DATA) {
            continue;
        }
        let mut files = tar::Archive::new(decompress::reader(part)?);
        for (index, entry) in files.entries()?.enumerate() {
            if index >= MAX_ENTRIES {
                return Err(invalid("the package has too many files"));
            }
            let entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path()?;
            let Some(path) = path.to_str().map(|path| path.trim_start_matches("./").to_owned()) else {
                continue;
            };
            if wanted(&path) {
                let contents = decompress::all(entry, limit)?;
                take(&path, contents)?;
            }
        }
        return Ok(());
    }
    Err(invalid("no data in the package"))
}

/// Packages for tests.
#[cfg(test)]
pub(crate) mod samples {
    /// A package with these files.
    pub(crate) fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut data = tar::Builder::new(Vec::new());
        for (path, contents) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            data.append_data(&mut header, format!("./{path}"), *contents).unwrap();
        }
        let data = zstd::encode_all(&*data.into_inner().unwrap(), 1).unwrap();
        let mut package = ar::Builder::new(Vec::new());
        for (name, contents) in
            [("debian-binary", &b"2.0\n"[..]), ("control.tar.zst", b""), ("data.tar.zst", &data)]
        {
            package.append(&ar::Header::new(name.into(), contents.len() as u64), contents).unwrap();
        }
        package.into_inner().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(package: &[u8]) -> io::Result<Vec<String>> {
        let mut list = Vec::new();
        let wanted = |path: &str| path.starts_with("boot/");
        read(package, 100, wanted, |path, contents| {
            list.push(format!("{path} {}", contents.len()));
            Ok(())
        })?;
        Ok(list)
    }

    #[test]
    fn wanted_files_are_read() {
        let package = samples::package(&[("boot/vmlinuz-6", b"kernel"), ("usr/share/doc/x", b"")]);
        assert_eq!(list(&package).unwrap(), ["boot/vmlinuz-6 6"]);
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let package = samples::package(&[("boot/vmlinuz-6", &[0; 101])]);
        assert_eq!(list(&package).unwrap_err().to_string(), "more than 100 bytes");
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..400, junk in prop::collection::vec(any::<u8>(), 1..40)) {
            let mut package = samples::package(&[("boot/vmlinuz-6", b"kernel")]);
            for (place, byte) in package.iter_mut().skip(at).zip(&junk) {
                *place = *byte;
            }
            let _any = list(&package);
            let _any = list(&junk);
        }
    }
}
