//! Finding a disk among the guest's virtio disks.

use std::{fs, io, path::Path, time::Duration};

use tart_proto::message::{Disk, Failure};

use crate::{failure, uevent};

/// How long the kernel may take to show a disk.
const LIMIT: Duration = Duration::from_secs(10);

const BLOCK: &str = "/sys/block";

/// The driver of the disks.
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_blk";

/// What disks are counted in, in bytes.
const SECTOR: u64 = 512;

/// Most disks: `vda` to `vdz`.
const LETTERS: u8 = 26;

/// The device file of a disk, once the kernel has it.
pub(super) async fn find(disk: &Disk) -> Result<String, Failure> {
    let found = uevent::wait_for(LIMIT, || Ok(choose(disk, &present()?))).await;
    let name = found.map_err(|e| failure::system("cannot list the guest's disks", e))?.ok_or_else(|| {
        failure::not_found(format!("no disk `{}` (position {})", disk.serial, disk.position))
    })?;
    let name = if disk.bytes == 0 { name } else { look_again(disk, name).await? };
    Ok(format!("/dev/{name}"))
}

/// Has the kernel see that a disk has another image than before.
async fn look_again(disk: &Disk, name: String) -> Result<String, Failure> {
    let sectors = disk.bytes.div_ceil(SECTOR);
    if size(&name) == Some(sectors) {
        return Ok(name);
    }
    let failed = |e| failure::system(format!("cannot look at disk `{}` again", disk.serial), e);
    // Without serials the monitor tells the kernel itself, and cannot have its device found anew.
    if present().map_err(failed)?.iter().any(|(_, serial)| !serial.is_empty()) {
        find_anew(&name).map_err(failed)?;
    }
    let changed =
        uevent::wait_for(LIMIT, || Ok(choose(disk, &present()?).filter(|name| size(name) == Some(sectors))));
    changed.await.map_err(failed)?.ok_or_else(|| {
        let bytes = disk.bytes;
        failure::not_found(format!("disk `{}` has not become one of {bytes} bytes", disk.serial))
    })
}

/// In sectors.
fn size(name: &str) -> Option<u64> {
    fs::read_to_string(format!("{BLOCK}/{name}/size")).ok()?.trim().parse().ok()
}

/// Takes a disk from its driver and gives it back.
fn find_anew(name: &str) -> io::Result<()> {
    let device = fs::read_link(format!("{BLOCK}/{name}/device"))?;
    let device = device.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidData)?;
    fs::write(Path::new(DRIVER).join("unbind"), device)?;
    fs::write(Path::new(DRIVER).join("bind"), device)
}

/// Name and serial of the virtio disks. What has no letter is none of ours: Firecracker makes its serials of the numbers of
/// images' files.
fn present() -> io::Result<Vec<(String, String)>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir(BLOCK)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("vd")) else { continue };
        let serial = fs::read_to_string(format!("{BLOCK}/{name}/serial")).unwrap_or_default();
        disks.push((name.to_owned(), own_serial(&serial).to_owned()));
    }
    Ok(disks)
}

fn own_serial(text: &str) -> &str {
    let text = text.trim();
    if text.contains(|c: char| c.is_ascii_alphabetic()) { text } else { "" }
}

/// By serial; by position only if no disk has a serial, as with Firecracker, since a position may be another disk's
/// while the right one is yet to come.
fn choose(disk: &Disk, present: &[(String, String)]) -> Option<String> {
    let by_serial = present.iter().find(|(_, serial)| !serial.is_empty() && *serial == disk.serial);
    if let Some((name, _)) = by_serial {
        return Some(name.clone());
    }
    if present.iter().any(|(_, serial)| !serial.is_empty()) || disk.position >= LETTERS {
        return None;
    }
    let wanted = format!("vd{}", char::from(b'a' + disk.position));
    present.iter().any(|(name, _)| *name == wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, serial)| ((*name).to_owned(), (*serial).to_owned())).collect()
    }

    fn disk(position: u8) -> Disk {
        Disk { serial: "scratch".into(), position, bytes: 0 }
    }

    #[test]
    fn numbers_are_no_serial_of_ours() {
        assert_eq!(own_serial("service-1\n"), "service-1");
        for firecracker in ["64768012345678901234", "2064\n", "", "\n"] {
            assert_eq!(own_serial(firecracker), "");
        }
    }

    #[test]
    fn a_serial_beats_the_position() {
        let present = disks(&[("vda", "scratch"), ("vdb", "helper")]);
        assert_eq!(choose(&disk(1), &present).unwrap(), "vda");
    }

    #[test]
    fn a_position_counts_only_where_no_disk_has_a_serial() {
        assert_eq!(choose(&disk(1), &disks(&[("vda", ""), ("vdb", "")])).unwrap(), "vdb");
        assert_eq!(choose(&disk(0), &disks(&[("vda", "helper")])), None);
        assert_eq!(choose(&disk(2), &disks(&[("vda", ""), ("vdb", "")])), None);
        assert_eq!(choose(&disk(200), &disks(&[("vda", "")])), None);
    }
}
