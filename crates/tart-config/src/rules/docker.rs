//! Rules of `[runners.docker]`: values that only make sense for containers on a shared host.

use toml::{Spanned, de::DeValue};

use crate::{check::Checker, value};

/// Devices that every guest has of its own.
const GUEST_DEVICES: &[&str] = &["/dev/net/tun", "/dev/fuse", "/dev/loop", "/dev/kvm"];

pub(super) fn check(checker: &mut Checker<'_>, path: &str, spanned: &Spanned<DeValue<'_>>) {
    let span = spanned.span();
    let found = spanned.get_ref();
    let text = found.as_str().unwrap_or_default();
    let list = value::strings(found).unwrap_or_default();
    match path {
        "runners.docker.network_mode" if !matches!(text, "" | "bridge" | "none" | "default") => {
            let hint = "a VM has a network of its own: use \"bridge\", or \"none\" for no network";
            checker.error(span, format!("`{path}` = {text:?} is not supported: {hint}"));
        }
        "runners.docker.pid_mode" | "runners.docker.ipcmode" if text == "host" => {
            let hint = "a VM shares no name space with the host: remove it";
            checker.error(span, format!("`{path}` = \"host\" is not supported: {hint}"));
        }
        "runners.docker.pull_policy" | "runners.docker.allowed_pull_policies" => {
            let policies = if found.is_str() { vec![text] } else { list };
            for policy in policies {
                if !matches!(policy, "" | "always" | "if-not-present" | "never") {
                    let expected = "\"always\", \"if-not-present\" or \"never\"";
                    checker.error(span.clone(), format!("`{path}` must be {expected}, found {policy:?}"));
                }
            }
        }
        "runners.docker.volumes" => {
            for volume in list {
                if let Some(reason) = refused_volume(volume) {
                    checker.error(span.clone(), format!("`{path}`: {volume:?} is not supported: {reason}"));
                }
            }
        }
        "runners.docker.devices" => {
            for device in list {
                let host = device.split(':').next().unwrap_or_default();
                if !GUEST_DEVICES.iter().any(|known| host.starts_with(known)) {
                    let hint = "a VM has no devices of the host; `/dev/net/tun`, `/dev/fuse`, `/dev/loop*` and `/dev/kvm` are the guest's own";
                    checker.error(span.clone(), format!("`{path}`: {device:?} is not supported: {hint}"));
                }
            }
        }
        _ => {}
    }
}

/// Why a volume cannot be given to a VM.
fn refused_volume(volume: &str) -> Option<&'static str> {
    let parts: Vec<&str> = volume.split(':').collect();
    match parts.as_slice() {
        [host, ..] if host.ends_with("/docker.sock") => Some(
            "jobs do not get the host's Docker; run a `docker:dind` service, each job has its own machine",
        ),
        [path] if path.starts_with('/') => None,
        [_, guest] | [_, guest, _] if !guest.starts_with('/') => Some("the path in the job must be absolute"),
        [_, _, options] if options.split(',').any(|option| option == "ro") => None,
        [_, _] | [_, _, _] => Some("a job may not write to the host; add `:ro` to only read it"),
        _ => Some("write \"/path\" or \"/host/path:/path:ro\""),
    }
}
