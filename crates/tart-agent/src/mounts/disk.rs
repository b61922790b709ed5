//! Finding a disk among the guest's virtio disks.

use std::{fs, io, time::Duration};

use tart_proto::message::{Disk, Failure};

use crate::{failure, uevent};

/// How long the kernel may take to show a disk.
const LIMIT: Duration = Duration::from_secs(10);

const BLOCK: &str = "/sys/block";

/// Most disks: `vda` to `vdz`.
const LETTERS: u8 = 26;

/// The device file of a disk, once the kernel has it.
pub(super) async fn find(disk: &Disk) -> Result<String, Failure> {
    let found = uevent::wait_for(LIMIT, || Ok(choose(disk, &present()?))).await;
    let name = found.map_err(|e| failure::system("cannot list the guest's disks", e))?.ok_or_else(|| {
        failure::not_found(format!("no disk `{}` (position {})", disk.serial, disk.position))
    })?;
    Ok(format!("/dev/{name}"))
}

/// Name and serial of the virtio disks.
fn present() -> io::Result<Vec<(String, String)>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir(BLOCK)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("vd")) else { continue };
        let serial = fs::read_to_string(format!("{BLOCK}/{name}/serial")).unwrap_or_default();
        disks.push((name.to_owned(), serial.trim().to_owned()));
    }
    Ok(disks)
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
        Disk { serial: "scratch".into(), position }
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
