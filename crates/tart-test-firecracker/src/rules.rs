//! Which fields each request may have in which version: every other one is refused, as `deny_unknown_fields` does.

use serde_json::{Map, Value};

/// What a value has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Text,
    Number,
    Bool,
    Object,
    List,
    /// Tokens in a time.
    Bucket,
    /// Buckets of bytes and of operations.
    Limiter,
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

use Kind::{Bool, Bucket, Limiter, List, Number, Object, Text};

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
    ("/serial", 14, &[may("serial_out_path", Text), newer("rate_limiter", Bucket, 16)]),
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
        &[may("kvm_capabilities", List), may("cpuid_modifiers", List), may("msr_modifiers", List)],
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
            may("rate_limiter", Limiter),
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
            may("rx_rate_limiter", Limiter),
            may("tx_rate_limiter", Limiter),
            newer("mtu", Number, 16),
        ],
    ),
    ("/vsock", 0, &[must("guest_cid", Number), must("uds_path", Text), may("vsock_id", Text)]),
    ("/entropy", 0, &[may("rate_limiter", Limiter)]),
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
    &[must("drive_id", Text), may("path_on_host", Text), may("rate_limiter", Limiter)];
pub(crate) const SAVE: &[Field] =
    &[must("snapshot_path", Text), must("mem_file_path", Text), may("snapshot_type", Text)];
pub(crate) const LOAD: &[Field] = &[
    must("snapshot_path", Text),
    may("mem_backend", Object),
    may("mem_file_path", Text),
    may("enable_diff_snapshots", Bool),
    newer("track_dirty_pages", Bool, 13),
    may("resume_vm", Bool),
    newer("network_overrides", List, 12),
    newer("vsock_override", Object, 16),
    newer("clock_realtime", Bool, 16),
    newer("huge_pages", Text, 17),
];
pub(crate) const BACKEND: &[Field] =
    &[must("backend_type", Text), must("backend_path", Text), newer("overlays", List, 17)];

/// What rate limiters are made of.
const BUCKET: &[Field] = &[must("size", Number), must("refill_time", Number), may("one_time_burst", Number)];
const LIMITER: &[Field] = &[may("bandwidth", Bucket), may("ops", Bucket)];

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
            Number => value.is_u64(),
            Bool => value.is_boolean(),
            Object => value.is_object(),
            List => value.is_array(),
            Bucket => {
                within(BUCKET, value, minor)?;
                true
            }
            Limiter => {
                within(LIMITER, value, minor)?;
                true
            }
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

/// Checks an object within a body.
fn within(fields: &[Field], value: &Value, minor: u32) -> Result<(), String> {
    let invalid = "An error occurred when deserializing the json body of a request: invalid type.";
    check(fields, value.as_object().ok_or(invalid)?, minor)
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
        let load = json!({ "snapshot_path": "s", "track_dirty_pages": true });
        let load = |minor| check(LOAD, load.as_object().unwrap(), minor);
        assert!(load(12).unwrap_err().contains("unknown field `track_dirty_pages`") && load(13).is_ok());
    }

    #[test]
    fn the_console_has_a_bucket_and_devices_have_limiters() {
        let bucket = json!({ "size": 1, "refill_time": 100 });
        let serial = |limiter: &Value| json!({ "rate_limiter": limiter });
        let entropy = |limiter: &Value| fault("/entropy", serial(limiter), 16);
        let accepted = |path, limiter: &Value| {
            let Value::Object(body) = serial(limiter) else { unreachable!() };
            check(fields(path, 16).unwrap(), &body, 16).is_ok()
        };
        assert!(accepted("/serial", &bucket) && accepted("/entropy", &json!({ "bandwidth": bucket })));
        assert!(fault("/serial", serial(&json!({ "ops": bucket })), 16).contains("unknown field `ops`"));
        assert!(entropy(&bucket).contains("unknown field"));
        assert!(entropy(&json!({ "ops": { "size": 1 } })).contains("missing field `refill_time`"));
        assert!(entropy(&json!({ "ops": { "size": -1, "refill_time": 1 } })).contains("invalid type"));
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_refused() {
        assert!(fault("/vsock", json!({ "guest_cid": 3 }), 16).contains("missing field `uds_path`"));
        assert!(fault("/vsock", json!({ "guest_cid": "3", "uds_path": "x" }), 16).contains("invalid type"));
    }
}
