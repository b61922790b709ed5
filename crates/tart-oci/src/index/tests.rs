use std::{io::Write as _, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::LayerSource;

struct Bytes(Vec<u8>);

impl LayerSource for Bytes {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }
}

/// A layer whose digest is that of `plain`.
fn layer(compressed: Vec<u8>, plain: &[u8]) -> Layer {
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(plain)));
    let size = compressed.len() as u64;
    Layer::unnamed(Arc::new(Bytes(compressed)), "sha256:0123456789abcdef", size, &diff_id).unwrap()
}

fn archive(size: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size as u64);
    builder.append_data(&mut header, "a".repeat(200), &*vec![0; size]).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn problem(layer: &Layer, limits: &Limits) -> String {
    index(layer, 0, limits).unwrap_err().to_string()
}

#[test]
fn every_compression_is_read() {
    let plain = archive(5000);
    let (first, second) = plain.split_at(1000);
    let members = [gzip(first), gzip(second)].concat();
    for compressed in [plain.clone(), gzip(&plain), members, zstd::encode_all(&*plain, 3).unwrap()] {
        let index = index(&layer(compressed, &plain), 0, &Limits::default()).unwrap();
        assert_eq!((index.entries.len(), index.bytes), (1, plain.len() as u64));
        assert_eq!((index.entries[0].path.len(), index.entries[0].size), (200, 5000));
    }
}

#[test]
fn what_follows_the_end_counts_for_the_digest() {
    let mut plain = archive(10);
    plain.extend(b"trailing");
    index(&layer(gzip(&plain), &plain), 0, &Limits::default()).unwrap();
    insta::assert_snapshot!(problem(&layer(gzip(&archive(10)), &plain), &Limits::default()), @"layer 0123456789ab: its content has the digest sha256:b306282f89f9b3af04e44b482e07dfc9ca07d83b2ae5d0ebb979c8521a76baa3, and the image says sha256:8633f656951314e8b5a6800a6384dbb1b56496d8882988ca94c119aff908b3e6: it was damaged or forged");
}

#[test]
fn truncated_layers_are_refused() {
    let plain = archive(5000);
    for (compressed, cut) in
        [(plain.clone(), 3000), (gzip(&plain), 60), (zstd::encode_all(&*plain, 3).unwrap(), 60)]
    {
        let text = problem(&layer(compressed[..cut].to_vec(), &plain), &Limits::default());
        assert!(text.starts_with("layer 0123456789ab: it "), "{text}");
    }
    insta::assert_snapshot!(problem(&layer(b"<html>".to_vec(), b""), &Limits::default()), @"layer 0123456789ab: it ends too early");
    insta::assert_snapshot!(problem(&layer([b'x'; 1000].to_vec(), b""), &Limits::default()), @"layer 0123456789ab: it is no tar archive, or damaged: the checksum of a header is wrong");
}

#[test]
fn bombs_are_refused() {
    let plain = archive(3 << 20);
    let limits = Limits { free_bytes: 1 << 20, ratio: 100, ..Limits::default() };
    insta::assert_snapshot!(problem(&layer(gzip(&plain), &plain), &limits), @"layer 0123456789ab: it has more than 1048576 bytes in 3173 compressed ones, which is more than an image may have");
    let limits = Limits { total_bytes: 1 << 20, ..Limits::default() };
    assert!(problem(&layer(plain.clone(), &plain), &limits).contains("more than an image may have"));
    let limits = Limits { entries: 0, ..Limits::default() };
    insta::assert_snapshot!(problem(&layer(plain.clone(), &plain), &limits), @"layer 0123456789ab: it has more than 0 entries");
    let limits = Limits { path_bytes: 100, ..Limits::default() };
    insta::assert_snapshot!(problem(&layer(plain.clone(), &plain), &limits), @"layer 0123456789ab: a path of 201 bytes is longer than 101");
    let limits = Limits { text_bytes: 100, ..Limits::default() };
    insta::assert_snapshot!(problem(&layer(plain.clone(), &plain), &limits), @"layer 0123456789ab: its paths take more than 100 bytes");
}

#[test]
fn names_that_take_all_memory_are_refused() {
    // A long name that claims to have a gigabyte.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let bytes = [header.as_bytes().as_slice(), &[b'a'; 2048]].concat();
    insta::assert_snapshot!(problem(&layer(bytes.clone(), &bytes), &Limits::default()), @"layer 0123456789ab: a path of 1073741824 bytes is longer than 4097");
}

#[test]
fn attributes_owners_and_times_of_extended_headers_count() {
    let mut builder = tar::Builder::new(Vec::new());
    let value = b"\x01\0\0\x02\n\x20\0\0".as_slice();
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.security.capability", value),
            ("uid", b"3000000000".as_slice()),
            ("mtime", b"12.5".as_slice()),
            ("comment", b"no".as_slice()),
        ])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o4755);
    header.set_size(0);
    builder.append_data(&mut header, "ping", &b""[..]).unwrap();
    let plain = builder.into_inner().unwrap();
    let index = index(&layer(plain.clone(), &plain), 0, &Limits::default()).unwrap();
    let metadata = &index.entries[0].metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.mtime), (0o4755, 3_000_000_000, 12));
    let xattrs = metadata.xattrs.as_ref().unwrap();
    assert_eq!(xattrs.as_slice(), [(b"security.capability".as_slice().into(), value.into())]);
}

#[test]
fn memory_grows_with_entries_only() {
    // What an index takes for an entry besides its path, as the documentation says.
    assert!(size_of::<Indexed>() <= 120, "{}", size_of::<Indexed>());
}

proptest! {
    #[test]
    fn damage_is_an_error_and_never_a_panic(at in 0usize..6000, junk in prop::collection::vec(any::<u8>(), 1..600)) {
        let plain = archive(5000);
        let mut damaged = plain.clone();
        for (place, byte) in damaged.iter_mut().skip(at).zip(&junk) {
            *place = *byte;
        }
        let changed = damaged != plain;
        for compressed in [damaged.clone(), gzip(&damaged)] {
            let index = index(&layer(compressed, &plain), 0, &Limits::default());
            prop_assert!(!changed || index.is_err());
        }
        let mut broken = gzip(&plain);
        for (place, byte) in broken.iter_mut().skip(at % 80).zip(&junk) {
            *place = *byte;
        }
        let _any = index(&layer(broken, &plain), 0, &Limits::default());
    }
}
