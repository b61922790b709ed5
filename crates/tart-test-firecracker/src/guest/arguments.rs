//! QEMU's arguments for a machine that was described to Firecracker's API. For QEMU 7.2.

use std::{
    fs::{self, Metadata},
    os::{fd::RawFd, unix::fs::MetadataExt as _},
};

use serde_json::{Map, Value, json};

use super::initrd;

/// Boots ELF kernels. The usual firmware of the machine, qboot, looks for the head of the kernel in memory that QEMU 7.2 has
/// used for something else by then.
const FIRMWARE: &str = "/usr/share/seabios/bios-microvm.bin";

/// Host memory for translated code, in MiB: with QEMU's own it has to do with what Tart lets Firecracker have.
const TCG_BUFFER: u32 = 32;

/// Debian's kernels count 250 ticks in a second.
const HZ: u64 = 250;

/// Number of the instruction cmpxchg16b among the kernel's features of processors.
const CX16: u32 = 141;

/// Where Firecracker puts its first device of virtio, and how far apart they are.
const FIRST_DEVICE: u64 = 0xc000_1000;
const DEVICE_SIZE: u64 = 0x1000;
const FIRST_INTERRUPT: u64 = 5;

/// Longest kernel line with its end, in bytes.
const MAX_LINE: usize = 2048;

/// Longest serial of a disk, in bytes.
const MAX_SERIAL: usize = 20;

/// Descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited {
    /// Connected socket of the control connection.
    pub(super) qmp: RawFd,
    /// Connected socket of what QEMU takes for the vhost driver.
    pub(super) vhost: RawFd,
}

/// A machine as it was described.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    /// Requests that were accepted, paths and bodies, in their order.
    pub(super) requests: Vec<(String, Map<String, Value>)>,
}

impl Described {
    /// Adds a request, in the place of an earlier one of the same path.
    pub(super) fn add(&mut self, path: &str, body: Map<String, Value>) {
        match self.requests.iter_mut().find(|(known, _)| known == path) {
            Some((_, known)) => *known = body,
            None => self.requests.push((path.to_owned(), body)),
        }
    }

    fn one(&self, path: &str) -> Option<&Map<String, Value>> {
        self.requests.iter().find(|(known, _)| known == path).map(|(_, body)| body)
    }

    /// The bodies of all requests below a path, or of the one of that path.
    fn all<'d>(&'d self, path: &'d str) -> impl Iterator<Item = &'d Map<String, Value>> {
        let below = move |known: &str| {
            known.strip_prefix(path).is_some_and(|id| id.is_empty() || id.starts_with('/'))
        };
        self.requests.iter().filter(move |(known, _)| below(known)).map(|(_, body)| body)
    }

    fn number(&self, path: &str, name: &str, otherwise: u64) -> u64 {
        self.one(path).and_then(|body| body.get(name)).and_then(Value::as_u64).unwrap_or(otherwise)
    }

    pub(super) fn memory_mib(&self) -> u64 {
        self.number("/machine-config", "mem_size_mib", 128)
    }

    pub(super) fn cid(&self) -> u64 {
        self.number("/vsock", "guest_cid", 3)
    }

    /// Ids and read-only flags of the disks, in their order.
    fn disks(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.all("/drives").map(|body| (text(body, "drive_id"), body))
    }

    pub(super) fn is_read_only(&self, id: &str) -> bool {
        self.disks().any(|(known, body)| known == id && body.get("is_read_only") == Some(&Value::Bool(true)))
    }

    /// Takes other network devices of the host.
    pub(super) fn rename_taps(&mut self, overrides: &[Value]) {
        for (path, body) in &mut self.requests {
            let given = overrides.iter().find(|given| {
                *path == format!("/network-interfaces/{}", given["iface_id"].as_str().unwrap_or_default())
            });
            if let Some(given) = given {
                body.insert("host_dev_name".to_owned(), given["host_dev_name"].clone());
            }
        }
    }

    /// How many devices of virtio it has.
    fn devices(&self) -> u64 {
        let count = |path| u64::try_from(self.all(path).count()).unwrap_or_default();
        ["/balloon", "/drives", "/network-interfaces", "/vsock", "/entropy"].map(count).iter().sum()
    }

    /// What Firecracker gives the kernel: the line as it was given, and devices.
    fn firecracker_line(&self) -> Result<String, String> {
        let given = self.one("/boot-source").map_or("", |body| text(body, "boot_args"));
        let mut words: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
        if self.disks().any(|(_, body)| body.get("is_root_device") == Some(&Value::Bool(true))) {
            words.push("root=/dev/vda".to_owned());
        }
        words.push("pci=off".to_owned());
        for number in 0..self.devices() {
            let (address, interrupt) = (FIRST_DEVICE + number * DEVICE_SIZE, FIRST_INTERRUPT + number);
            words.push(format!("virtio_mmio.device=4K@{address:#x}:{interrupt}"));
        }
        let line = words.join(" ");
        if line.len() < MAX_LINE { Ok(line) } else { Err("Kernel cmdline: Overlong string".to_owned()) }
    }

    /// The initial file system that the kernel is given.
    pub(super) fn initrd(&self) -> Option<&str> {
        let path = text(self.one("/boot-source")?, "initrd_path");
        (!path.is_empty()).then_some(path)
    }

    /// All arguments, without the program. They name the copy of the initial file system.
    pub(super) fn arguments(
        &self,
        inherited: Inherited,
        tsc_khz: u64,
        loads: bool,
    ) -> Result<Vec<String>, String> {
        let Some(boot) = self.one("/boot-source") else {
            return Err("Cannot start microvm without kernel configuration.".to_owned());
        };
        let vcpus = self.number("/machine-config", "vcpu_count", 1);
        // Without these, an emulated processor does not get far; see the other driver of Tart.
        let mut line = self.firecracker_line()?;
        line += &format!(
            " tsc_early_khz={tsc_khz} lpj={} mitigations=off clearcpuid={CX16}",
            tsc_khz * 1000 / HZ
        );
        if vcpus > 1 {
            line += " maxcpus=1";
        }
        let memory = self.memory_mib();
        let mut arguments: Vec<String> =
            ["-nodefaults", "-no-user-config", "-no-reboot", "-no-shutdown"].map(str::to_owned).into();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("-display", "none".to_owned());
        // Devices are described by ACPI, as Firecracker does since 1.8. There is no interrupt controller of a PC: its tables
        // tell the kernel not to touch one, the firmware leaves it connected with its vectors at 0, and so an interrupt that it
        // sends as soon as the kernel allows any would look like a division error.
        let machine = "microvm,acpi=on,rtc=on,pit=on,pic=off,auto-kernel-cmdline=off,memory-backend=ram";
        add("-machine", machine.to_owned());
        add("-bios", FIRMWARE.to_owned());
        add("-accel", format!("tcg,thread=multi,tb-size={TCG_BUFFER}"));
        add("-cpu", "max,la57=off".to_owned());
        add("-global", "virtio-mmio.force-legacy=false".to_owned());
        add("-m", format!("{memory}M"));
        add("-object", format!("memory-backend-memfd,id=ram,size={memory}M,share=on,seal=off"));
        add("-smp", vcpus.to_string());
        if loads {
            // What a kernel was booted from is not there any more.
            add("-incoming", "defer".to_owned());
        } else {
            add("-kernel", text(boot, "kernel_image_path").to_owned());
            if self.initrd().is_some() {
                add("-initrd", initrd::NAME.to_owned());
            }
            add("-append", line);
        }
        add("-chardev", format!("socket,id=qmp,fd={}", inherited.qmp));
        add("-mon", "chardev=qmp,mode=control".to_owned());
        add("-chardev", "stdio,id=console,signal=off".to_owned());
        add("-serial", "chardev:console".to_owned());
        // There is no keyboard controller, which would need that interrupt controller. The guest's kernel finds another way to
        // reset the machine.
        if self.one("/balloon").is_some() {
            add("-device", "virtio-balloon-device,deflate-on-oom=on".to_owned());
        }
        for (id, body) in self.disks() {
            let (node, image) = (format!("{id}-0"), text(body, "path_on_host"));
            add("-blockdev", blockdev(&node, image, self.is_read_only(id)).to_string());
            let serial = serial(image);
            add(
                "-device",
                format!(
                    "virtio-blk-device,id={id},drive={node},serial={serial},discard=off,write-zeroes=off"
                ),
            );
        }
        for body in self.all("/network-interfaces") {
            let (id, device) = (text(body, "iface_id"), text(body, "host_dev_name"));
            add("-netdev", format!("tap,id={id},ifname={device},script=no,downscript=no"));
            let mac = body.get("guest_mac").and_then(Value::as_str);
            let mac = mac.map(|mac| format!(",mac={mac}")).unwrap_or_default();
            add("-device", format!("virtio-net-device,netdev={id}{mac}"));
        }
        if self.one("/vsock").is_some() {
            add(
                "-device",
                format!(
                    "vhost-vsock-device,guest-cid={},vhostfd={},event_idx=off",
                    self.cid(),
                    inherited.vhost
                ),
            );
        }
        if self.one("/entropy").is_some() {
            add("-object", "rng-builtin,id=rng".to_owned());
            add("-device", "virtio-rng-device,rng=rng".to_owned());
        }
        Ok(arguments)
    }
}

/// Text of a request.
pub(super) fn text<'b>(body: &'b Map<String, Value>, name: &str) -> &'b str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What Firecracker tells the guest of an image: numbers of its file.
fn serial(image: &str) -> String {
    let numbers = |about: Metadata| format!("{}{}{}", about.dev(), about.rdev(), about.ino());
    let mut serial = fs::metadata(image).map(numbers).unwrap_or_default();
    serial.truncate(MAX_SERIAL);
    serial
}

/// The options of an image's block node. Firecracker takes no locks on images.
pub(super) fn blockdev(node: &str, image: &str, read_only: bool) -> Value {
    json!({
        "driver": "raw",
        "node-name": node,
        "read-only": read_only,
        "file": {
            "driver": "file",
            "filename": image,
            "read-only": read_only,
            "locking": "off",
            "cache": { "no-flush": !read_only },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn described() -> Described {
        let mut described = Described::default();
        for (path, value) in [
            ("/machine-config", json!({ "vcpu_count": 2, "mem_size_mib": 256 })),
            ("/boot-source", json!({ "kernel_image_path": "kernel", "boot_args": "reboot=k" })),
            ("/drives/disk0", json!({ "drive_id": "disk0", "path_on_host": "gone", "is_read_only": true })),
            ("/network-interfaces/nic", json!({ "iface_id": "nic", "host_dev_name": "tap0" })),
            ("/vsock", json!({ "guest_cid": 3, "uds_path": "agent.vsock" })),
            ("/entropy", json!({})),
        ] {
            described.add(path, body(value));
        }
        described
    }

    const INHERITED: Inherited = Inherited { qmp: 10, vhost: 11 };

    #[test]
    fn the_kernel_gets_its_line_and_what_firecracker_and_the_emulator_add() {
        let arguments = described().arguments(INHERITED, 2_000_000, false).unwrap();
        let line = arguments.iter().skip_while(|word| *word != "-append").nth(1).unwrap();
        insta::assert_snapshot!(line, @"reboot=k pci=off virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=4K@0xc0002000:6 virtio_mmio.device=4K@0xc0003000:7 virtio_mmio.device=4K@0xc0004000:8 tsc_early_khz=2000000 lpj=8000000 mitigations=off clearcpuid=141 maxcpus=1");
        let loaded = described().arguments(INHERITED, 2_000_000, true).unwrap();
        assert!(!loaded.contains(&"-kernel".to_owned()) && loaded.contains(&"defer".to_owned()));
    }

    #[test]
    fn a_loaded_machine_has_the_tap_device_that_it_is_told() {
        let mut described = described();
        described.rename_taps(&[json!({ "iface_id": "nic", "host_dev_name": "tap7" })]);
        described.rename_taps(&[json!({ "iface_id": "other", "host_dev_name": "tap8" })]);
        let arguments = described.arguments(INHERITED, 1, true).unwrap();
        assert!(arguments.contains(&"tap,id=nic,ifname=tap7,script=no,downscript=no".to_owned()));
    }

    #[test]
    fn a_line_without_room_for_devices_is_refused() {
        let mut described = described();
        described.add("/boot-source", body(json!({ "boot_args": "a".repeat(1950) })));
        assert!(described.arguments(INHERITED, 1, false).unwrap_err().contains("Overlong"));
        assert!(Described::default().arguments(INHERITED, 1, false).is_err());
    }
}
