//! What the fake knows of its machine, and what it makes of a request.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::Path,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{memory::Served, plan::Plan, reports::Reports, rules, vsock::Vsock};

/// Longest command line of a kernel, with its final zero.
const MAX_LINE: usize = 2048;

pub(crate) const AFTER: &str = "The requested operation is not supported after starting the microVM.";
pub(crate) const BEFORE: &str = "The requested operation is not supported before starting the microVM.";

/// The machine.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) plan: Plan,
    pub(crate) vsock: Option<Vsock>,
    pub(crate) reports: Reports,
    pub(crate) started: bool,
    pub(crate) paused: bool,
    /// A guest truly runs: its memory is its own.
    pub(crate) boots: bool,
    /// A snapshot could not be loaded: the process ends.
    pub(crate) broken: bool,
    /// Requests that a snapshot does not go with.
    pub(crate) configured: bool,
    pub(crate) memory_mib: u64,
    pub(crate) huge: bool,
    /// Memory that another process serves.
    pub(crate) served: Option<Served>,
    pub(crate) drives: BTreeMap<String, Drive>,
    pub(crate) vsock_path: Option<String>,
    pub(crate) kernel: bool,
    /// Bytes of the kernel's command line.
    line: usize,
    /// Virtio devices beside the disks: paths of their requests.
    devices: BTreeSet<String>,
    root: Option<String>,
    taps: BTreeSet<String>,
    cids: bool,
}

/// A disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Drive {
    path: String,
    read_only: bool,
}

impl Drive {
    /// A disk whose image can be opened as it will be used.
    pub(crate) fn open(path: &str, read_only: bool) -> Result<Self, String> {
        File::options()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|error| format!("The drive file cannot be opened: {error}"))?;
        Ok(Self { path: path.to_owned(), read_only })
    }

    /// The same disk with another image.
    pub(crate) fn swap(&mut self, path: &str) -> Result<(), String> {
        *self = Self::open(path, self.read_only)?;
        Ok(())
    }

    /// The same disk in another process.
    pub(crate) fn reopen(&self) -> Result<Self, String> {
        Self::open(&self.path, self.read_only)
    }
}

/// What is answered: a status and a body.
pub(crate) type Answer = (u16, Value);

pub(crate) fn fault(text: impl Into<String>) -> Answer {
    (400, json!({ "fault_message": text.into() }))
}

impl State {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            vsock: None,
            reports: Reports::default(),
            started: false,
            paused: false,
            boots: false,
            broken: false,
            configured: false,
            memory_mib: 128,
            huge: false,
            served: None,
            drives: BTreeMap::new(),
            vsock_path: None,
            kernel: false,
            line: 0,
            devices: BTreeSet::new(),
            root: None,
            taps: BTreeSet::new(),
            cids: false,
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        match (method, path) {
            ("GET", _) if !body.is_empty() => fault("GET request cannot have a body."),
            ("GET", "/") => {
                let state = match (self.started, self.paused) {
                    (false, _) => "Not started",
                    (true, false) => "Running",
                    (true, true) => "Paused",
                };
                let version = &self.plan.version;
                (
                    200,
                    json!({ "app_name": "Firecracker", "id": "fake", "state": state, "vmm_version": version }),
                )
            }
            ("GET", "/version") => (200, json!({ "firecracker_version": self.plan.version })),
            ("PUT", _) if body.is_empty() => fault("Empty PUT request."),
            ("PATCH", _) if body.is_empty() => fault("Empty PATCH request."),
            ("PUT", _) => match serde_json::from_slice::<Value>(body) {
                Ok(Value::Object(body)) => self.put(path, &body).unwrap_or_else(fault),
                Ok(_) | Err(_) => fault("An error occurred when deserializing the json body of a request."),
            },
            ("PATCH", _) => match serde_json::from_slice::<Value>(body) {
                Ok(Value::Object(body)) => self.patch(path, &body).unwrap_or_else(fault),
                Ok(_) | Err(_) => fault("An error occurred when deserializing the json body of a request."),
            },
            _ => fault(format!("Invalid request method and/or path: {method} {path}.")),
        }
    }

    fn put(&mut self, path: &str, body: &Map<String, Value>) -> Result<Answer, String> {
        match path {
            "/actions" => return self.act(body),
            "/snapshot/create" => return self.save(body),
            "/snapshot/load" => return self.load(body),
            _ => {}
        }
        let (top, id) = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((top, id)) => (format!("/{top}"), Some(id)),
            None => (path.to_owned(), None),
        };
        let minor = self.plan.minor();
        let fields =
            rules::fields(&top, minor).ok_or(format!("Invalid request method and/or path: PUT {path}."))?;
        rules::check(fields, body, minor)?;
        if self.started {
            return Err(AFTER.to_owned());
        }
        if !matches!(top.as_str(), "/logger" | "/metrics" | "/serial" | "/cpu-config") {
            self.configured = true;
        }
        if let "/network-interfaces" | "/vsock" | "/entropy" | "/balloon" = top.as_str() {
            self.devices.insert(path.to_owned());
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| body.get(name).and_then(Value::as_u64).unwrap_or_default();
        if let "/drives" | "/network-interfaces" = top.as_str() {
            let own = if top == "/drives" { text("drive_id") } else { text("iface_id") };
            check_id(id.unwrap_or_default(), own)?;
        }
        match top.as_str() {
            "/logger" => self.reports.logger(body, minor)?,
            "/metrics" => self.reports.metrics(text("metrics_path"), minor)?,
            "/machine-config" => {
                self.machine(number("vcpu_count"), number("mem_size_mib"), text("huge_pages"))?;
                self.memory_mib = number("mem_size_mib");
                self.huge = text("huge_pages") == "2M";
            }
            "/boot-source" => self.boot(text("kernel_image_path"), text("initrd_path"), text("boot_args"))?,
            "/drives" => {
                let read_only = body.get("is_read_only") == Some(&Value::Bool(true));
                let drive = Drive::open(text("path_on_host"), read_only)?;
                self.drives.insert(text("drive_id").to_owned(), drive);
                if body.get("is_root_device") == Some(&Value::Bool(true)) {
                    match &self.root {
                        Some(root) if root != text("drive_id") => {
                            return Err("A root block device already exists!".to_owned());
                        }
                        _ => self.root = Some(text("drive_id").to_owned()),
                    }
                }
                one_of("cache_type", text("cache_type"), &["", "Unsafe", "Writeback"])?;
                one_of("io_engine", text("io_engine"), &["", "Sync", "Async"])?;
            }
            "/network-interfaces" => self.tap(text("host_dev_name"))?,
            "/vsock" => {
                if number("guest_cid") < 3 {
                    return Err("The guest CID is invalid.".to_owned());
                }
                if std::mem::replace(&mut self.cids, true) {
                    self.vsock = None;
                }
                self.vsock_path = Some(text("uds_path").to_owned());
                let vsock = Vsock::bind(Path::new(text("uds_path")))
                    .map_err(|e| format!("Cannot create vsock: {e}"))?;
                self.vsock = Some(vsock);
            }
            _ => {}
        }
        Ok((204, Value::Null))
    }

    fn act(&mut self, body: &Map<String, Value>) -> Result<Answer, String> {
        if body.len() != 1 {
            return Err("An error occurred when deserializing the json body of a request.".to_owned());
        }
        match body.get("action_type").and_then(Value::as_str) {
            Some("InstanceStart") if self.started => Err(AFTER.to_owned()),
            Some("InstanceStart") if !self.kernel => {
                Err("Cannot start microvm without kernel configuration.".to_owned())
            }
            Some("InstanceStart") => {
                self.check_devices()?;
                self.started = true;
                self.reports.flush(0);
                Ok((204, Value::Null))
            }
            Some("SendCtrlAltDel" | "FlushMetrics") if !self.started => Err(BEFORE.to_owned()),
            Some("FlushMetrics") => {
                self.reports.flush(0);
                Ok((204, Value::Null))
            }
            Some("SendCtrlAltDel") => Ok((204, Value::Null)),
            _ => Err("An error occurred when deserializing the json body of a request: unknown variant."
                .to_owned()),
        }
    }

    fn machine(&self, vcpus: u64, mib: u64, pages: &str) -> Result<(), String> {
        if !(1..=32).contains(&vcpus) {
            return Err("The vCPU number is invalid!".to_owned());
        }
        let transparent = if self.plan.minor() >= 17 { "Transparent" } else { "None" };
        one_of("huge_pages", pages, &["", "None", "2M", transparent])?;
        if mib == 0 || (matches!(pages, "2M" | "Transparent") && !mib.is_multiple_of(2)) {
            return Err("The memory size (MiB) is invalid.".to_owned());
        }
        Ok(())
    }

    fn boot(&mut self, kernel: &str, initrd: &str, arguments: &str) -> Result<(), String> {
        let magic = readable(kernel, "kernel")?;
        if self.plan.minor() < 17 && !magic.starts_with(b"\x7fELF") {
            return Err("Cannot load kernel due to invalid memory configuration or invalid kernel image: Invalid ELF magic number".to_owned());
        }
        if !initrd.is_empty() {
            readable(initrd, "initrd")?;
        }
        if arguments.len() >= MAX_LINE {
            return Err("The kernel command line is invalid: too large".to_owned());
        }
        self.kernel = true;
        self.line = arguments.len();
        Ok(())
    }

    /// There are interrupts for so many devices, each of which the kernel is told of.
    fn check_devices(&self) -> Result<(), String> {
        let devices = self.devices.len() + self.drives.len();
        let most = match self.plan.minor() {
            ..8 => 19,
            8..15 => 18,
            _ => 17,
        };
        if devices > most {
            return Err("Cannot attach a device: no interrupt is left".to_owned());
        }
        let appended = " pci=off".len() + devices * " virtio_mmio.device=4K@0xc0001000:5".len();
        if self.line + appended >= MAX_LINE {
            return Err("Cannot create the kernel command line: too large".to_owned());
        }
        Ok(())
    }

    /// A tap device is opened when the request is made, in the namespace of the process.
    fn tap(&mut self, device: &str) -> Result<(), String> {
        if !self.taps.insert(device.to_owned()) {
            return Err(format!("Open tap device failed: {device} is in use"));
        }
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        let index = socket.and_then(|socket| name_to_index(&socket, device));
        index.map(drop).map_err(|error| format!("Open tap device failed: {device}: {error}"))
    }
}

/// Paths have letters, digits and `_`; no hyphens.
pub(crate) fn check_id(path: &str, body: &str) -> Result<(), String> {
    if path.is_empty() || !path.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!(
            "API Resource IDs can only contain alphanumeric characters and underscores: {path}."
        ));
    }
    if path == body {
        Ok(())
    } else {
        Err("The id from the path does not match the id from the body!".to_owned())
    }
}

fn one_of(name: &str, value: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&value) { Ok(()) } else { Err(format!("unknown variant `{value}` of `{name}`")) }
}

/// The first bytes of a file.
fn readable(path: &str, what: &str) -> Result<Vec<u8>, String> {
    let mut magic = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    read.map_err(|error| format!("The {what} file cannot be opened: {error}"))?;
    Ok(magic)
}
