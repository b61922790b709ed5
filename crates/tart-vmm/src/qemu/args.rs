//! QEMU's arguments. Pure; checked with QEMU 7.2.

use std::{ffi::OsString, os::fd::RawFd, path::Path};

use serde_json::{Value, json};

use crate::{Acceleration, DiskSpec, MachineSpec, Origin, VmmError};

/// Name of the agent's port in the guest.
pub(crate) const AGENT_PORT: &str = "tart.agent";

/// Host memory for translated code, in MiB. QEMU's own choice is up to 1024, which it fills before it frees any.
pub(super) const TCG_BUFFER: u32 = 256;

/// Descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    /// Connected socket of the control connection.
    pub(crate) qmp: RawFd,
    /// Connected socket of the console.
    pub(crate) console: RawFd,
    /// Listening socket of the agent's port.
    pub(crate) agent: RawFd,
    /// The network device's host end.
    pub(crate) nic: Option<RawFd>,
    /// The file of the guest's memory, if it has one.
    pub(crate) memory: Option<RawFd>,
}

/// All arguments, without the program.
pub(crate) fn arguments(
    spec: &MachineSpec,
    acceleration: Acceleration,
    kernel_line: &str,
    fds: Inherited,
) -> Result<Vec<OsString>, VmmError> {
    let mut args = Arguments(Vec::new());
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.option("-name", format!("tart-{}", spec.id));
    args.option("-display", "none");
    // The machine's end is the guest's reset.
    args.flag("-no-reboot");
    args.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    machine(&mut args, acceleration, fds.memory.is_some());
    args.option("-m", format!("{}M", spec.memory_mib()));
    memory(&mut args, spec, fds.memory);
    args.option("-smp", spec.vcpus.to_string());
    args.option("-kernel", &spec.kernel);
    args.option("-initrd", &spec.initrd);
    args.option("-append", kernel_line);
    args.option("-chardev", format!("socket,id=qmp,fd={}", fds.qmp));
    args.option("-mon", "chardev=qmp,mode=control");
    args.option("-chardev", format!("socket,id=console,fd={}", fds.console));
    args.option("-serial", "chardev:console");
    args.option("-chardev", format!("socket,id=agent,fd={},server=on,wait=off", fds.agent));
    args.option("-device", "virtio-serial-device,max_ports=2");
    args.option("-device", format!("virtserialport,chardev=agent,name={AGENT_PORT}"));
    args.option("-object", "rng-builtin,id=rng");
    args.option("-device", "virtio-rng-device,rng=rng");
    for (position, disk) in spec.disks.iter().enumerate() {
        args.option("-blockdev", blockdev(position, disk, &spec.id)?.to_string());
        let (node, device) = (node(position), device(position));
        args.option("-device", format!("virtio-blk-device,id={device},drive={node},serial={}", disk.serial));
    }
    if let (Some(nic), Some(fd)) = (&spec.nic, fds.nic) {
        args.option("-netdev", netdev(&nic.link, fd));
        args.option("-device", format!("virtio-net-device,netdev=nic,mac={}", mac(&nic.mac, &spec.id)?));
    }
    Ok(args.0)
}

/// The file of the guest's memory: a template's is written to, and those that go on from it map it privately.
fn memory(args: &mut Arguments, spec: &MachineSpec, file: Option<RawFd>) {
    let Some(file) = file else { return };
    let from_snapshot = matches!(spec.origin, Origin::Snapshot(_));
    let share = if from_snapshot { "off" } else { "on" };
    let size = spec.memory_mib();
    args.option(
        "-object",
        format!("memory-backend-file,id=ram,size={size}M,mem-path=/proc/self/fd/{file},share={share}"),
    );
    if from_snapshot {
        args.option("-incoming", "defer");
    }
}

fn machine(args: &mut Arguments, acceleration: Acceleration, memory_file: bool) {
    // Devices are described by ACPI: distribution kernels do not read them from the command line. Without a memory
    // image in core dumps, and without searching for equal pages, which would let guests learn of each other.
    let backend = if memory_file { ",memory-backend=ram" } else { "" };
    let common = format!(
        "microvm,acpi=on,rtc=on,x-option-roms=off,auto-kernel-cmdline=off,dump-guest-core=off,mem-merge=off{backend}"
    );
    match acceleration {
        Acceleration::Kvm => {
            args.option("-machine", format!("{common},pit=off,pic=off"));
            args.option("-accel", "kvm");
            args.option("-cpu", "host");
        }
        Acceleration::Tcg => {
            // Without both, the guest's kernel finds no timer that works.
            args.option("-machine", format!("{common},pit=on,pic=on"));
            args.option("-accel", format!("tcg,thread=multi,tb-size={TCG_BUFFER}"));
            // A fifth level of page tables only makes emulated memory accesses slower.
            args.option("-cpu", "max,la57=off");
        }
    }
    args.option("-global", "virtio-mmio.force-legacy=false");
}

/// Size of a disk without an image, in bytes. No image has it, so the guest sees by the size which one it has.
const EMPTY: u64 = 4096;

/// The block node of the disk in a position.
fn node(position: usize) -> String {
    format!("disk{position}")
}

/// The name of the device of the disk in a position.
pub(super) fn device(position: usize) -> String {
    format!("blk{position}")
}

/// The options of a disk's block node.
fn blockdev(position: usize, disk: &DiskSpec, id: &str) -> Result<Value, VmmError> {
    match &disk.path {
        Some(path) => image(&node(position), path, disk, id),
        None => Ok(json!({
            "driver": "null-co",
            "node-name": node(position),
            "size": EMPTY,
            "read-zeroes": true,
            "read-only": disk.read_only,
        })),
    }
}

/// The options of an image's block node. Job disks are thrown away, so a guest's flush has nothing to protect; deleted
/// blocks are given back to the host.
pub(super) fn image(node: &str, path: &Path, disk: &DiskSpec, id: &str) -> Result<Value, VmmError> {
    let path = path.to_str().ok_or_else(|| VmmError::Spec {
        id: id.to_owned(),
        reason: format!("the path of disk `{}` is not UTF-8", disk.serial),
    })?;
    let discard = if disk.read_only { "ignore" } else { "unmap" };
    Ok(json!({
        "driver": "raw",
        "node-name": node,
        "read-only": disk.read_only,
        "discard": discard,
        "cache": { "no-flush": !disk.read_only },
        "file": {
            "driver": "file",
            "filename": path,
            "read-only": disk.read_only,
            "discard": discard,
            "aio": "threads",
            "cache": { "no-flush": !disk.read_only },
        },
    }))
}

fn netdev(link: &tart_net::NicLink, fd: RawFd) -> String {
    match link {
        tart_net::NicLink::Stream(_) => format!("stream,id=nic,server=off,addr.type=fd,addr.str={fd}"),
        tart_net::NicLink::Tap(_) | tart_net::NicLink::Device { .. } => format!("tap,id=nic,fd={fd}"),
    }
}

/// A MAC address that can hold no further options.
fn mac<'a>(mac: &'a str, id: &str) -> Result<&'a str, VmmError> {
    let octet = |octet: &str| octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
    if mac.split(':').count() == 6 && mac.split(':').all(octet) {
        Ok(mac)
    } else {
        Err(VmmError::Spec { id: id.to_owned(), reason: format!("`{mac}` is no MAC address") })
    }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

#[cfg(test)]
mod tests;
