use std::collections::BTreeMap;

use serde::Serialize;

/// `info` of requests: the program, and what it can do (protocol reference 2.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VersionInfo {
    /// The program's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub revision: String,
    /// The operating system, as Go names it: `linux`.
    pub platform: String,
    /// The architecture, as Go names it: `amd64`.
    pub architecture: String,
    /// The executor.
    pub executor: String,
    /// The shell of scripts.
    pub shell: String,
    /// What the runner can do.
    pub features: Features,
    /// Parts of the configuration the server shows.
    pub config: ConfigInfo,
    /// At most 32; keys and values are restricted, see the reference.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// `info.config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ConfigInfo {
    /// Empty if there are none.
    pub gpus: String,
}

/// `info.features`: all keys are always sent. The server fails jobs that need one that is missing (protocol
/// reference 2.2), so each must be true as soon as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Variables.
    pub variables: bool,
    /// `image`.
    pub image: bool,
    /// `services`.
    pub services: bool,
    /// Uploads and downloads artifacts.
    pub artifacts: bool,
    /// Saves and restores caches.
    pub cache: bool,
    /// `cache:fallback_keys`.
    pub fallback_cache_keys: bool,
    /// Jobs share the place they run in.
    pub shared: bool,
    /// More than one upload of artifacts: needed for reports.
    pub upload_multiple_artifacts: bool,
    /// Artifacts that are not archives.
    pub upload_raw_artifacts: bool,
    /// Interactive sessions.
    pub session: bool,
    /// Interactive terminals.
    pub terminal: bool,
    /// Fetches by the job's refspecs.
    pub refspecs: bool,
    /// Masks secrets in the log.
    pub masking: bool,
    /// Proxies to services.
    pub proxy: bool,
    /// Variables that are not expanded.
    pub raw_variables: bool,
    /// `artifacts:exclude`.
    pub artifacts_exclude: bool,
    /// More steps than `script`: needed for `release`.
    pub multi_build_steps: bool,
    /// Sends the log again when asked to.
    pub trace_reset: bool,
    /// Sends the log's checksum.
    pub trace_checksum: bool,
    /// Sends the log's size.
    pub trace_size: bool,
    /// `secrets`.
    pub vault_secrets: bool,
    /// Jobs can be cancelled.
    pub cancelable: bool,
    /// Sends the exit code: needed for `allow_failure:exit_codes`.
    pub return_exit_code: bool,
    /// Services have variables of their own.
    pub service_variables: bool,
    /// Services have several names.
    pub service_multiple_aliases: bool,
    /// `image:docker`.
    pub image_executor_opts: bool,
    /// `services:docker`.
    pub service_executor_opts: bool,
    /// A cancelled job runs its `after_script`.
    pub cancel_gracefully: bool,
    /// `run` without the step-runner in the image.
    pub native_steps_integration: bool,
    /// Jobs begin when they are acknowledged.
    pub two_phase_job_commit: bool,
    /// `inputs` of jobs.
    pub job_inputs: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_said_even_when_it_is_missing() {
        let info = VersionInfo {
            name: "tart".into(),
            features: Features { refspecs: true, ..Features::default() },
            ..VersionInfo::default()
        };
        let json = serde_json::to_value(&info).expect("json");
        let features = json["features"].as_object().expect("an object");
        assert_eq!(features.len(), 31);
        assert_eq!(features["refspecs"], true);
        assert_eq!(features["shared"], false);
        assert_eq!(json["config"]["gpus"], "");
        assert_eq!(json.get("labels"), None);
    }
}
