//! What this version does with each key. The one place to change when a key gains its effect.

/// What Tart does with a key or section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It has its effect.
    Works,
    /// It is read, and a warning says that it has no effect in this version.
    NotYet,
    /// It means nothing to Tart; the reason is printed once.
    Ignored(&'static str),
    /// It must not be set; the text says what to do instead.
    Refused(&'static str),
}

use Support::{Ignored, NotYet, Refused, Works};

const OTHER_EXECUTOR: &str = "it belongs to another executor, and every job of Tart runs in its own microVM";
const NO_CONTAINER: &str = "it describes a container, and a job of Tart has a VM of its own";
const OWN_VM: &str = "every job and its services have all rights in a VM of their own, and none on the host";
const NO_DAEMON: &str = "Tart uses no Docker daemon";
const NO_HELPER: &str = "the helper's tools are built into the VM";
const ROLES: &str =
    "taking roles is not supported yet: set `AccessKey` and `SecretKey`, or remove `[runners.cache.s3]`";
const NO_GPU: &str =
    "a microVM has no graphics processor: run these jobs on another runner and choose it by tags";

/// Rows by path. A section's row holds for all that is in it without a row of its own; what has no row works.
static ROWS: &[(&str, Support)] = &[
    ("user", Ignored("there is no shell executor whose jobs could run as that user")),
    ("sentry_dsn", Ignored("errors are only logged")),
    ("listen_address", NotYet),
    ("labels", NotYet),
    ("machine", Ignored(OTHER_EXECUTOR)),
    ("experimental.usage_logger", NotYet),
    ("experimental.usage_logger.snowplow_billing", Ignored("records are not sent to GitLab")),
    ("runners.proxy_exec", Ignored("output is always masked outside the job's processes")),
    ("runners.use_slot_cgroups", NotYet),
    ("runners.slot_cgroup_template", NotYet),
    ("runners.step_runner_image", Ignored("the step runner is not supported")),
    ("runners.labels", NotYet),
    ("runners.ssh", Ignored(OTHER_EXECUTOR)),
    ("runners.parallels", Ignored(OTHER_EXECUTOR)),
    ("runners.virtualbox", Ignored(OTHER_EXECUTOR)),
    ("runners.kubernetes", Ignored(OTHER_EXECUTOR)),
    ("runners.custom", Ignored(OTHER_EXECUTOR)),
    ("runners.machine", Ignored(OTHER_EXECUTOR)),
    ("runners.instance", Ignored(OTHER_EXECUTOR)),
    (
        "runners.autoscaler",
        Refused("Tart starts microVMs on this host and no cloud machines: remove it and set `limit`"),
    ),
    ("runners.referees", Ignored("it collects metrics of docker-machine hosts")),
    ("runners.monitoring", NotYet),
    ("runners.experimental", NotYet),
    ("runners.docker", NotYet),
    ("runners.docker.image", Works),
    ("runners.docker.pull_policy", Works),
    ("runners.docker.allowed_pull_policies", Works),
    ("runners.docker.allowed_images", Works),
    ("runners.docker.user", Works),
    ("runners.docker.allowed_users", Works),
    ("runners.docker.disable_entrypoint_overwrite", Works),
    ("runners.docker.allowed_services", Works),
    ("runners.docker.services_limit", Works),
    ("runners.docker.wait_for_services_timeout", Works),
    ("runners.docker.service_memory", Works),
    ("runners.docker.services", Works),
    ("runners.docker.volumes", Works),
    ("runners.docker.privileged", Ignored(OWN_VM)),
    ("runners.docker.services_privileged", Ignored(OWN_VM)),
    ("runners.docker.allowed_privileged_images", Ignored(OWN_VM)),
    ("runners.docker.allowed_privileged_services", Ignored(OWN_VM)),
    ("runners.docker.oom_kill_disable", Ignored(NO_CONTAINER)),
    ("runners.docker.links", Ignored("Docker has deprecated it; services are found by their names")),
    (
        "runners.docker.volumes_from",
        Refused("there are no other containers to share volumes of: use `volumes`"),
    ),
    ("runners.docker.volume_driver", Ignored(NO_DAEMON)),
    ("runners.docker.volume_keep", Ignored(NO_DAEMON)),
    ("runners.docker.device_cgroup_rules", Ignored("all devices of the VM belong to the job")),
    ("runners.docker.gpus", Refused(NO_GPU)),
    ("runners.docker.service_gpus", Refused(NO_GPU)),
    ("runners.docker.runtime", Ignored(NO_CONTAINER)),
    ("runners.docker.isolation", Ignored(NO_CONTAINER)),
    ("runners.docker.userns_mode", Ignored(NO_CONTAINER)),
    ("runners.docker.pid_mode", Ignored(NO_CONTAINER)),
    ("runners.docker.ipcmode", Ignored(NO_CONTAINER)),
    ("runners.docker.security_opt", Ignored(NO_CONTAINER)),
    ("runners.docker.services_security_opt", Ignored(NO_CONTAINER)),
    ("runners.docker.service_cgroup_parent", Ignored(NO_CONTAINER)),
    ("runners.docker.service_slot_cgroup_template", Ignored(NO_CONTAINER)),
    ("runners.docker.services.suspend_data_path", Ignored("all of a suspended VM is kept")),
    ("runners.docker.host", Ignored(NO_DAEMON)),
    ("runners.docker.tls_cert_path", Ignored(NO_DAEMON)),
    ("runners.docker.tls_verify", Ignored(NO_DAEMON)),
    ("runners.docker.helper_image", Ignored(NO_HELPER)),
    ("runners.docker.helper_image_flavor", Ignored(NO_HELPER)),
    ("runners.docker.helper_image_autoset_arch_and_os", Ignored(NO_HELPER)),
    ("runners.docker.container_labels", Ignored(NO_DAEMON)),
    ("runners.docker.log_options", Ignored(NO_DAEMON)),
    ("runners.cache.s3.RoleARN", Refused(ROLES)),
    ("runners.cache.s3.UploadRoleARN", Refused(ROLES)),
    ("runners.cache.s3.AssumeRoleMaxConcurrency", NotYet),
    ("runners.cache.s3.DisableAssumeRoleCredentialsCaching", NotYet),
];

/// The support of the key or section at a dotted path, and the path of the row it is from.
pub(crate) fn row(path: &str) -> (Support, &str) {
    let mut ancestor = path;
    loop {
        if let Some((_, support)) = ROWS.iter().find(|(row, _)| *row == ancestor) {
            return (*support, ancestor);
        }
        match ancestor.rsplit_once('.') {
            Some((parent, _)) => ancestor = parent,
            None => return (Works, path),
        }
    }
}

/// The support of the key or section at a dotted path such as `runners.docker.image`.
pub fn of(path: &str) -> Support {
    row(path).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn every_row_names_something_of_the_schema() {
        for (path, _) in ROWS {
            let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
            let known = schema::section(path).is_some()
                || schema::section(parent).and_then(|section| section.key(name)).is_some();
            assert!(known, "{path}");
        }
    }

    #[test]
    fn a_section_speaks_for_keys_without_a_row() {
        assert_eq!(of("runners.docker.image"), Works);
        assert_eq!(of("runners.docker.cap_add"), NotYet);
        assert_eq!(of("runners.cache.s3.BucketName"), Works);
        assert_eq!(of("runners.cache.s3.AssumeRoleMaxConcurrency"), NotYet);
        assert_eq!(of("runners.limit"), Works);
        assert!(matches!(of("runners.docker.gpus"), Refused(_)));
    }
}
