//! File systems that a disk may have: how long they take to make, how large they are, how fast they are read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{run, time};
use crate::report::{line, seconds};

/// Files of the tree of small files.
const SMALL_FILES: usize = 100_000;

/// Reads of one measurement.
const READS: usize = 2000;

/// One way to make a disk.
struct Format {
    name: &'static str,
    /// The file system's name for `mount`.
    fstype: &'static str,
    /// A script with `$tar`, `$tree` and `$disk`. What needs a tree has it unpacked as root.
    make: &'static str,
    note: &'static str,
}

const FORMATS: [Format; 6] = [
    Format {
        name: "squashfs, lz4",
        fstype: "squashfs",
        make: "tar2sqfs -q -f --no-skip -c lz4 \"$disk\" < \"$tar\"",
        note: "from a stream, by any user",
    },
    Format {
        name: "squashfs, zstd",
        fstype: "squashfs",
        make: "tar2sqfs -q -f --no-skip -c zstd \"$disk\" < \"$tar\"",
        note: "from a stream, by any user",
    },
    Format {
        name: "squashfs, gzip",
        fstype: "squashfs",
        make: "tar2sqfs -q -f --no-skip -c gzip \"$disk\" < \"$tar\"",
        note: "from a stream, by any user",
    },
    Format {
        name: "erofs, plain",
        fstype: "erofs",
        make: "rm -f \"$disk\"; mkfs.erofs \"$disk\" \"$tree\" > /dev/null 2>&1",
        note: "Debian's 1.5 needs an unpacked tree, as root",
    },
    Format {
        name: "erofs, lz4",
        fstype: "erofs",
        make: "rm -f \"$disk\"; mkfs.erofs -zlz4 \"$disk\" \"$tree\" > /dev/null 2>&1",
        note: "the same",
    },
    Format {
        name: "ext4",
        fstype: "ext4",
        make: "rm -f \"$disk\"; truncate -s 2G \"$disk\"; mke2fs -q -O ^has_journal -N 200000 -d \"$tree\" \"$disk\"",
        note: "the same, and its size must be known",
    },
];

/// Prints a table.
pub(super) fn compare(tar: &Path, directory: &Path, repeat: usize) -> Result<()> {
    let tree = directory.join("tree");
    fs::create_dir_all(&tree)?;
    let unpacked = time(Command::new("tar").arg("-xpf").arg(tar).arg("-C").arg(&tree))?;
    let (small_tree, small_tar) = small(directory)?;
    line(&format!("unpacking the image, which half of the formats need first: {}", seconds(unpacked)));
    line("");
    line("| format | made in | size | random reads of 4 KiB | 100k small files made in | |");
    line("| --- | ---: | ---: | ---: | ---: | --- |");
    for format in &FORMATS {
        let disk = directory.join("disk");
        let mut times = (0..repeat).map(|_| format.make(tar, &tree, &disk)).collect::<Result<Vec<_>>>()?;
        times.sort();
        let made = times.get(times.len() / 2).copied().unwrap_or_default();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&disk)?);
        let speed = random_reads(format.fstype, &disk, &directory.join("mounted"))?;
        let many = format.make(&small_tar, &small_tree, &directory.join("small"))?;
        line(&format!(
            "| {} | {} | {} MB | {speed:.0}/s | {} | {} |",
            format.name,
            seconds(made),
            blocks * 512 / 1_000_000,
            seconds(many),
            format.note
        ));
    }
    Ok(())
}

impl Format {
    fn make(&self, tar: &Path, tree: &Path, disk: &Path) -> Result<Duration> {
        let mut make = Command::new("sh");
        make.args(["-euc", self.make]).env("tar", tar).env("tree", tree).env("disk", disk);
        time(&mut make)
    }
}

/// A tree of many small files, and the same as an archive.
fn small(directory: &Path) -> Result<(PathBuf, PathBuf)> {
    let tree = directory.join("small-tree");
    for number in 0..SMALL_FILES {
        let parent = tree.join(format!("{}", number % 100));
        if number < 100 {
            fs::create_dir_all(&parent)?;
        }
        fs::write(parent.join(number.to_string()), number.to_string().repeat(20))?;
    }
    let tar = directory.join("small.tar");
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&tree).arg("."))?;
    Ok((tree, tar))
}

/// Reads in a second at random places of the larger files, of a file system that nobody has read yet.
fn random_reads(fstype: &str, disk: &Path, at: &Path) -> Result<f64> {
    fs::create_dir_all(at)?;
    run(Command::new("mount").args(["-o", "loop,ro", "-t", fstype]).arg(disk).arg(at))?;
    let read = read_randomly(at);
    run(Command::new("umount").arg(at))?;
    read
}

fn read_randomly(root: &Path) -> Result<f64> {
    let found = run(Command::new("find").arg(root).args(["-xdev", "-type", "f", "-size", "+64k"]))?;
    let files: Vec<_> = found.lines().collect();
    // No cached page of an earlier measurement.
    fs::write("/proc/sys/vm/drop_caches", "3").context("only root can empty the caches")?;
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0)
    };
    let start = Instant::now();
    for _ in 0..READS {
        let path = files.get(random() % files.len().max(1)).context("there are no files")?;
        let file = File::open(path)?;
        let blocks = usize::try_from(file.metadata()?.len() / 4096)?;
        let place = random() % blocks.max(1) * 4096;
        file.read_at(&mut [0; 4096], place as u64)?;
    }
    Ok(READS as f64 / start.elapsed().as_secs_f64())
}
