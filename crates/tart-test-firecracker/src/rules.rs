//! Which fields each request may have in which version: every other one is refused, as `deny_unknown_fields` does.

use serde_json::{Map, Value};

/// What a value has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Text,
    Number,
    Bool,
    Object,
}

/// A field of a request's body.
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    kind: Kind,
    required: bool,
    /// First minor version of 1.x that knows it.
    since: u32,
}

const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true, since: 0 }
}

const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false, since: 0 }
}

const fn newer(name: &'static str, kind: Kind, since: u32) -> Field {
    Field { name, kind, required: false, since }
}

use Kind::{Bool, Number, Object, Text};

/// Requests of the time before the start: path without an id, first minor version, fields.
const BEFORE: &[(&str, u32, &[Field])] = &[
    (
        "/logger",
        0,
        &[
            may("log_path", Text),
            may("level", Text),
            may("show_level", Bool),
            may("show_log_origin", Bool),
            may("module", Text),
        ],
    ),
    (
        "/metrics",
        0,
        &[must("metrics_path", Text), newer("emit_id", Bool, 17), newer("properties", Object, 17)],
    ),
    ("/serial", 14, &[may("serial_out_path", Text), newer("rate_limiter", Object, 16)]),
    (
        "/machine-config",
        0,
        &[
            must("vcpu_count", Number),
            must("mem_size_mib", Number),
            may("smt", Bool),
            may("cpu_template", Text),
            may("track_dirty_pages", Bool),
            may("huge_pages", Text),
        ],
    ),
    (
        "/cpu-config",
        0,
        &[may("kvm_capabilities", Object), may("cpuid_modifiers", Object), may("msr_modifiers", Object)],
    ),
    ("/boot-source", 0, &[must("kernel_image_path", Text), may("initrd_path", Text), may("boot_args", Text)]),
    (
        "/drives",
        0,
        &[
            must("drive_id", Text),
            must("is_root_device", Bool),
            may("path_on_host", Text),
            may("is_read_only", Bool),
            may("partuuid", Text),
            may("cache_type", Text),
            may("io_engine", Text),
            may("rate_limiter", Object),
            may("socket", Text),
        ],
    ),
    (
        "/network-interfaces",
        0,
        &[
            must("iface_id", Text),
            must("host_dev_name", Text),
            may("guest_mac", Text),
            may("rx_rate_limiter", Object),
            may("tx_rate_limiter", Object),
            newer("mtu", Number, 16),
        ],
    ),
    ("/vsock", 0, &[must("guest_cid", Number), must("uds_path", Text), may("vsock_id", Text)]),
    ("/entropy", 0, &[may("rate_limiter", Object)]),
    (
        "/balloon",
        0,
        &[
            must("amount_mib", Number),
            must("deflate_on_oom", Bool),
            may("stats_polling_interval_s", Number),
            newer("free_page_hinting", Bool, 14),
            newer("free_page_reporting", Bool, 14),
        ],
    ),
];

/// Requests of a machine that runs, and of those that go on from one.
pub(crate) const RUN_STATE: &[Field] = &[must("state", Text)];
pub(crate) const PATCH_DRIVE: &[Field] =
    &[must("drive_id", Text), may("path_on_host", Text), may("rate_limiter", Object)];
pub(crate) const SAVE: &[Field] =
    &[must("snapshot_path", Text), must("mem_file_path", Text), may("snapshot_type", Text)];
pub(crate) const LOAD: &[Field] = &[
    must("snapshot_path", Text),
    may("mem_backend", Object),
    may("mem_file_path", Text),
    may("enable_diff_snapshots", Bool),
    may("track_dirty_pages", Bool),
    may("resume_vm", Bool),
    newer("network_overrides", Object, 12),
    newer("vsock_override", Object, 16),
    newer("clock_realtime", Bool, 16),
    newer("huge_pages", Text, 17),
];
pub(crate) const BACKEND: &[Field] = &[must("backend_type", Text), must("backend_path", Text)];

/// The fields of a request before the start, or nothing if the version has no such path.
pub(crate) fn fields(path: &str, minor: u32) -> Option<&'static [Field]> {
    let found = BEFORE.iter().find(|(known, since, _)| *known == path && minor >= *since);
    found.map(|(_, _, fields)| *fields)
}

/// Checks a body's fields. The error is a fault in Firecracker's manner.
pub(crate) fn check(fields: &[Field], body: &Map<String, Value>, minor: u32) -> Result<(), String> {
    for (name, value) in body {
        let field = fields.iter().find(|field| field.name == name && minor >= field.since);
        let Some(field) = field else {
            return Err(format!(
                "An error occurred when deserializing the json body of a request: unknown field `{name}`."
            ));
        };
        let fits = match field.kind {
            Text => value.is_string(),
            Number => value.is_u64() || value.is_i64(),
            Bool => value.is_boolean(),
            Object => value.is_object() || value.is_array(),
        };
        if !fits {
            return Err(format!(
                "An error occurred when deserializing the json body of a request: invalid type of `{name}`."
            ));
        }
    }
    match fields.iter().find(|field| field.required && !body.contains_key(field.name)) {
        Some(field) => Err(format!(
            "An error occurred when deserializing the json body of a request: missing field `{}`.",
            field.name
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(path: &str, body: Value, minor: u32) -> String {
        let Value::Object(body) = body else { panic!("an object") };
        check(fields(path, minor).unwrap(), &body, minor).unwrap_err()
    }

    #[test]
    fn a_field_is_unknown_before_its_version() {
        let body = json!({ "iface_id": "nic", "host_dev_name": "tap0", "mtu": 1400 });
        assert!(fault("/network-interfaces", body, 15).contains("unknown field `mtu`"));
        assert!(fields("/serial", 13).is_none() && fields("/serial", 14).is_some());
        assert!(fault("/serial", json!({ "rate_limiter": {} }), 14).contains("unknown field"));
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_refused() {
        assert!(fault("/vsock", json!({ "guest_cid": 3 }), 16).contains("missing field `uds_path`"));
        assert!(fault("/vsock", json!({ "guest_cid": "3", "uds_path": "x" }), 16).contains("invalid type"));
    }
}
