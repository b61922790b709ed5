//! What Firecracker is asked for before it starts a machine. Pure; the order and the fields are those of its API
//! (microvm.md 1.2).

use std::path::Path;

use serde_json::{Map, Value, json};

use super::version::Features;
use crate::{MachineSpec, VmmError};

/// Name of the vsock socket in the machine's directory, which is Firecracker's working directory.
pub(super) const VSOCK: &str = "agent.vsock";

/// Name of the image of disks without one, in the same place.
pub(super) const EMPTY_DISK: &str = "empty.disk";

/// Guest's address on its vsock; the same for all, since no other machine is on it.
const GUEST_CID: u32 = 3;

/// Most virtual processors of a machine.
const MAX_VCPUS: u32 = 32;

/// Disks for which there are interrupts, beside network, vsock, random numbers and the clock (1.15).
const MAX_DISKS: usize = 13;

/// What huge pages back a guest's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HugePages {
    /// None.
    #[default]
    None,
    /// Those of 2 MiB that the administrator reserved.
    TwoMib,
    /// Whatever the host's kernel finds; since 1.17.
    Transparent,
}

/// Where the memory of guests that go on from a snapshot comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SnapshotMemory {
    /// Firecracker maps the snapshot's file; memory of huge pages is served nevertheless, for it is in no file.
    #[default]
    File,
    /// Tart serves each page when the guest touches it.
    Uffd,
}

/// A bound of tokens in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens, bytes or operations, that are there at first and at most.
    pub size: u64,
    /// Milliseconds in which an empty bucket is full again.
    pub refill_ms: u64,
}

/// Options of machines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FirecrackerTuning {
    /// Pages of the guest's memory.
    pub huge_pages: HugePages,
    /// Where memory comes from that was saved.
    pub snapshot_memory: SnapshotMemory,
    /// Name of one of Firecracker's CPU templates, such as `T2`.
    pub cpu_template: Option<String>,
    /// A template of the administrator's own, as `PUT /cpu-config` takes it.
    pub cpu_config: Option<Value>,
    /// Give memory that the guest has no use for back to the host; since 1.14.
    pub balloon: bool,
    /// Bytes that the writable disk reads and writes.
    pub disk_bandwidth: Option<Bucket>,
    /// Bytes that the network device carries, each way.
    pub network_bandwidth: Option<Bucket>,
}

/// A request to the API.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Value,
}

impl Request {
    pub(super) fn put(path: impl Into<String>, body: Value) -> Self {
        Self { method: "PUT", path: path.into(), body }
    }

    /// Starts the guest.
    pub(super) fn start() -> Self {
        Self::put("/actions", json!({ "action_type": "InstanceStart" }))
    }
}

/// Everything before the start. `device` is the name of the tap device.
pub(super) fn before_start(
    spec: &MachineSpec,
    kernel_line: &str,
    device: Option<&str>,
    tuning: &FirecrackerTuning,
    features: Features,
) -> Result<Vec<Request>, VmmError> {
    let refuse = |reason: String| VmmError::Spec { id: spec.id.clone(), reason };
    if spec.vcpus > MAX_VCPUS {
        return Err(refuse(format!("Firecracker gives a guest at most {MAX_VCPUS} processors")));
    }
    if spec.disks.len() > MAX_DISKS {
        return Err(refuse(format!(
            "it has {} disks, and Firecracker has interrupts for {MAX_DISKS}: use fewer services",
            spec.disks.len()
        )));
    }
    let mut requests = Vec::new();
    requests.extend(serial(features));
    requests.push(Request::put("/machine-config", machine_config(spec, tuning, features).map_err(refuse)?));
    if let Some(config) = &tuning.cpu_config {
        requests.push(Request::put("/cpu-config", config.clone()));
    }
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| refuse(format!("the path {} is not UTF-8", path.display())))
    };
    requests.push(Request::put(
        "/boot-source",
        json!({
            "kernel_image_path": path(&spec.kernel)?,
            "initrd_path": path(&spec.initrd)?,
            // Firecracker's own would keep modules from being loaded.
            "boot_args": kernel_line,
        }),
    ));
    for (position, disk) in spec.disks.iter().enumerate() {
        let id = format!("disk{position}");
        let mut body = json!({
            "drive_id": id,
            "is_root_device": false,
            "path_on_host": path(disk.path.as_deref().unwrap_or(Path::new(EMPTY_DISK)))?,
            "is_read_only": disk.read_only,
            // Disks of jobs are thrown away: nothing has to survive a crash of the host.
            "cache_type": "Unsafe",
            "io_engine": "Sync",
        });
        if let Some(bandwidth) = tuning.disk_bandwidth.filter(|_| !disk.read_only) {
            add(&mut body, "rate_limiter", json!({ "bandwidth": bucket(bandwidth) }));
        }
        requests.push(Request::put(format!("/drives/{id}"), body));
    }
    if let (Some(nic), Some(device)) = (&spec.nic, device) {
        let mut body = json!({ "iface_id": "nic", "host_dev_name": device, "guest_mac": nic.mac });
        if let Some(bandwidth) = tuning.network_bandwidth {
            let limiter = json!({ "bandwidth": bucket(bandwidth) });
            add(&mut body, "rx_rate_limiter", limiter.clone());
            add(&mut body, "tx_rate_limiter", limiter);
        }
        requests.push(Request::put("/network-interfaces/nic", body));
    }
    requests.push(Request::put("/vsock", json!({ "guest_cid": GUEST_CID, "uds_path": VSOCK })));
    requests.push(Request::put("/entropy", json!({})));
    if tuning.balloon {
        // Nobody fills it: what gives memory back is that the guest reports pages as they become free.
        let mut body = json!({ "amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 0 });
        if features.page_reporting {
            add(&mut body, "free_page_reporting", json!(true));
        }
        requests.push(Request::put("/balloon", body));
    }
    Ok(requests)
}

/// The virtio devices of a machine: its disks, the network, the vsock, random numbers, and the balloon.
pub(super) fn devices(spec: &MachineSpec, tuning: &FirecrackerTuning) -> usize {
    spec.disks.len() + usize::from(spec.nic.is_some()) + 2 + usize::from(tuning.balloon)
}

/// Bounds the console. It is for what goes wrong at the start; a guest that floods it loses the rest.
fn serial(features: Features) -> Option<Request> {
    let bucket = bucket(Bucket { size: 1 << 20, refill_ms: 1000 });
    features.serial_limiter.then(|| Request::put("/serial", json!({ "rate_limiter": bucket })))
}

fn machine_config(
    spec: &MachineSpec,
    tuning: &FirecrackerTuning,
    features: Features,
) -> Result<Value, String> {
    let mut body = json!({ "vcpu_count": spec.vcpus, "mem_size_mib": spec.memory_mib(), "smt": false });
    let pages = match tuning.huge_pages {
        HugePages::None => None,
        HugePages::TwoMib => Some("2M"),
        HugePages::Transparent if features.transparent_pages => Some("Transparent"),
        HugePages::Transparent => {
            return Err("transparent huge pages need Firecracker 1.17".to_owned());
        }
    };
    if let Some(pages) = pages {
        if !spec.memory_mib().is_multiple_of(2) {
            return Err("memory of huge pages is a multiple of 2 MiB".to_owned());
        }
        add(&mut body, "huge_pages", json!(pages));
    }
    if let Some(template) = &tuning.cpu_template {
        add(&mut body, "cpu_template", json!(template));
    }
    Ok(body)
}

fn bucket(bucket: Bucket) -> Value {
    json!({ "size": bucket.size, "refill_time": bucket.refill_ms })
}

fn add(body: &mut Value, key: &str, value: Value) {
    let mut map = match body.take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    map.insert(key.to_owned(), value);
    *body = Value::Object(map);
}

/// Names of the files that a machine is saved to, in the machine's directory.
pub(super) const SAVED_MEMORY: &str = "saved.memory";
pub(super) const SAVED_STATE: &str = "saved.state";

fn run_state(state: &str) -> Request {
    Request { method: "PATCH", path: "/vm".to_owned(), body: json!({ "state": state }) }
}

/// Saves a running machine. It must not go on afterwards.
pub(super) fn save() -> Vec<Request> {
    let files =
        json!({ "snapshot_type": "Full", "snapshot_path": SAVED_STATE, "mem_file_path": SAVED_MEMORY });
    vec![run_state("Paused"), Request::put("/snapshot/create", files)]
}

/// Puts an image under a disk, which the guest is told of.
pub(super) fn insert(position: usize, image: &str) -> Request {
    let id = format!("disk{position}");
    let body = json!({ "drive_id": id, "path_on_host": image });
    Request { method: "PATCH", path: format!("/drives/{id}"), body }
}

/// What a machine goes on from, with paths as Firecracker sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) memory: Backend,
    /// The file of its devices' state.
    pub(super) state: String,
}

/// Where its memory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Backend {
    /// In a file.
    File(String),
    /// With a server that listens at a socket.
    Uffd(String),
}

/// Goes on from a saved machine, with the pages that it had: those cannot be changed before 1.17. Disks, whose paths are
/// part of the state, get their images before the guest runs.
pub(super) fn restore(
    spec: &MachineSpec,
    device: Option<&str>,
    saved: &Saved,
    features: Features,
) -> Result<Vec<Request>, VmmError> {
    let (kind, path) = match &saved.memory {
        Backend::File(path) => ("File", path),
        Backend::Uffd(path) => ("Uffd", path),
    };
    let mut load = json!({
        "snapshot_path": saved.state,
        "mem_backend": { "backend_type": kind, "backend_path": path },
        "resume_vm": false,
    });
    if let Some(device) = device.filter(|_| features.network_overrides) {
        let overrides = json!([{ "iface_id": "nic", "host_dev_name": device }]);
        add(&mut load, "network_overrides", overrides);
    }
    // What is no part of a saved machine, as the log and the metrics are not.
    let mut requests: Vec<Request> = serial(features).into_iter().collect();
    requests.push(Request::put("/snapshot/load", load));
    for (position, disk) in spec.disks.iter().enumerate() {
        let Some(path) = &disk.path else { continue };
        let path = path.to_str().ok_or_else(|| VmmError::Spec {
            id: spec.id.clone(),
            reason: format!("the path {} is not UTF-8", path.display()),
        })?;
        requests.push(insert(position, path));
    }
    requests.push(run_state("Resumed"));
    Ok(requests)
}

#[cfg(test)]
mod tests;
