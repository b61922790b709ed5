//! The settings a job makes with variables.

mod reader;

use std::time::Duration;

use crate::literal::format_duration;
use reader::Reader;

/// How the sources get into the project directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitStrategy {
    /// Into an empty directory.
    Clone,
    /// Into what is there.
    Fetch,
    /// Not at all: what is there stays.
    None,
    /// Not at all: the directory is emptied.
    Empty,
}

/// Which submodules are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmoduleStrategy {
    /// None.
    None,
    /// Those of the project.
    Normal,
    /// Those of the project, and theirs.
    Recursive,
    /// Not a strategy: fails the stage.
    Invalid(String),
}

/// What a job's variables say about the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSettings {
    /// `GIT_STRATEGY`.
    pub strategy: GitStrategy,
    /// `GIT_CHECKOUT`.
    pub checkout: bool,
    /// `GIT_CLEAN_FLAGS`; `None` skips cleaning.
    pub clean_flags: Option<Vec<String>>,
    /// `GIT_FETCH_EXTRA_FLAGS`.
    pub fetch_flags: Vec<String>,
    /// `GIT_LFS_SKIP_SMUDGE`.
    pub lfs_skip_smudge: bool,
    /// `GIT_SUBMODULE_STRATEGY`.
    pub submodule_strategy: SubmoduleStrategy,
    /// `GIT_SUBMODULE_PATHS`; empty means all.
    pub submodule_paths: Vec<String>,
    /// `GIT_SUBMODULE_DEPTH`; 0 means all history.
    pub submodule_depth: u32,
    /// `GIT_SUBMODULE_UPDATE_FLAGS`.
    pub submodule_update_flags: Vec<String>,
    /// `GIT_SUBMODULE_FORCE_HTTPS`.
    pub submodule_force_https: bool,
}

/// How often stages are tried, each from 1 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// `GET_SOURCES_ATTEMPTS`.
    pub get_sources: u32,
    /// `RESTORE_CACHE_ATTEMPTS`.
    pub restore_cache: u32,
    /// `ARTIFACT_DOWNLOAD_ATTEMPTS`.
    pub download_artifacts: u32,
    /// `SECRETS_RETRIEVAL_ATTEMPTS`.
    pub secrets: u32,
    /// `EXECUTOR_JOB_SECTION_ATTEMPTS`.
    pub job_section: u32,
}

/// What a job's variables say about archives and their transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// `CACHE_REQUEST_TIMEOUT`.
    pub cache_request_timeout: Duration,
    /// `CACHE_FALLBACK_KEY`; empty means none.
    pub cache_fallback_key: String,
    /// `CACHE_COMPRESSION_FORMAT`.
    pub cache_format: String,
    /// `CACHE_COMPRESSION_LEVEL`.
    pub cache_level: String,
    /// `ARTIFACT_COMPRESSION_LEVEL`.
    pub artifact_level: String,
    /// `TRANSFER_METER_FREQUENCY`; `None` shows no progress.
    pub transfer_meter: Option<Duration>,
    /// `RUNNER_GENERATE_ARTIFACTS_METADATA`.
    pub artifacts_metadata: bool,
}

/// All settings of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    /// About the sources.
    pub git: GitSettings,
    /// About repetition.
    pub attempts: Attempts,
    /// About archives.
    pub archives: ArchiveSettings,
    /// `RUNNER_SCRIPT_TIMEOUT`: bounds all steps together. `None` leaves it to the job's timeout.
    pub script_timeout: Option<Duration>,
    /// `RUNNER_AFTER_SCRIPT_TIMEOUT`.
    pub after_script_timeout: Duration,
    /// `AFTER_SCRIPT_IGNORE_ERRORS`.
    pub after_script_ignore_errors: bool,
    /// `CI_DEBUG_TRACE`, where the runner allows it.
    pub debug_trace: bool,
    /// `CI_DEBUG_SERVICES`, where the runner allows it.
    pub debug_services: bool,
}

/// What the settings start from.
#[derive(Debug, Clone, Copy)]
pub struct SettingDefaults {
    /// `allow_git_fetch` of the payload.
    pub allow_git_fetch: bool,
    /// `git_info.depth` of the payload.
    pub git_depth: u32,
    /// The job's timeout, which no other may exceed.
    pub job_timeout: Duration,
    /// `debug_trace_disabled` of the configuration.
    pub debug_trace_disabled: bool,
}

/// `RUNNER_AFTER_SCRIPT_TIMEOUT` where nothing sets it.
const AFTER_SCRIPT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

impl JobSettings {
    /// Reads the settings. `value` gives the content of a variable. A value that is not usable is replaced by the
    /// default, and named in `warnings`.
    pub fn read<'a>(
        value: impl Fn(&str) -> Option<&'a str>,
        defaults: SettingDefaults,
        warnings: &mut Vec<String>,
    ) -> Self {
        let mut read = Reader::new(&value, warnings);
        Self {
            git: GitSettings::read(&mut read, defaults),
            attempts: Attempts::read(&mut read),
            archives: ArchiveSettings::read(&mut read),
            script_timeout: read_timeout(&mut read, "RUNNER_SCRIPT_TIMEOUT", defaults.job_timeout),
            after_script_timeout: read_timeout(
                &mut read,
                "RUNNER_AFTER_SCRIPT_TIMEOUT",
                defaults.job_timeout,
            )
            .unwrap_or(AFTER_SCRIPT_TIMEOUT.min(defaults.job_timeout)),
            after_script_ignore_errors: read.boolean("AFTER_SCRIPT_IGNORE_ERRORS", true),
            debug_trace: read_debug(&mut read, "CI_DEBUG_TRACE", defaults),
            debug_services: read_debug(&mut read, "CI_DEBUG_SERVICES", defaults),
        }
    }
}

impl GitSettings {
    fn read(read: &mut Reader<'_, '_>, defaults: SettingDefaults) -> Self {
        let strategy = if defaults.allow_git_fetch { GitStrategy::Fetch } else { GitStrategy::Clone };
        let strategies = "clone, fetch, none or empty";
        Self {
            strategy: read.parsed("GIT_STRATEGY", strategies, strategy, |text| match text {
                "clone" => Some(GitStrategy::Clone),
                "fetch" => Some(GitStrategy::Fetch),
                "none" => Some(GitStrategy::None),
                "empty" => Some(GitStrategy::Empty),
                _ => None,
            }),
            checkout: read.boolean("GIT_CHECKOUT", true),
            clean_flags: Some(read.words("GIT_CLEAN_FLAGS", &["-ffdx"])).filter(|flags| !flags.is_empty()),
            fetch_flags: read.words("GIT_FETCH_EXTRA_FLAGS", &["--prune", "--quiet"]),
            lfs_skip_smudge: read.boolean("GIT_LFS_SKIP_SMUDGE", false),
            submodule_strategy: match read.text("GIT_SUBMODULE_STRATEGY") {
                None | Some("none") => SubmoduleStrategy::None,
                Some("normal") => SubmoduleStrategy::Normal,
                Some("recursive") => SubmoduleStrategy::Recursive,
                Some(other) => SubmoduleStrategy::Invalid(other.to_owned()),
            },
            submodule_paths: read.words("GIT_SUBMODULE_PATHS", &[]),
            submodule_depth: read
                .parsed("GIT_SUBMODULE_DEPTH", "a number", defaults.git_depth, |text| text.parse().ok()),
            submodule_update_flags: read.words("GIT_SUBMODULE_UPDATE_FLAGS", &[]),
            submodule_force_https: read.boolean("GIT_SUBMODULE_FORCE_HTTPS", false),
        }
    }
}

impl Attempts {
    fn read(read: &mut Reader<'_, '_>) -> Self {
        Self {
            get_sources: read_attempts(read, "GET_SOURCES_ATTEMPTS"),
            restore_cache: read_attempts(read, "RESTORE_CACHE_ATTEMPTS"),
            download_artifacts: read_attempts(read, "ARTIFACT_DOWNLOAD_ATTEMPTS"),
            secrets: read_attempts(read, "SECRETS_RETRIEVAL_ATTEMPTS"),
            job_section: read_attempts(read, "EXECUTOR_JOB_SECTION_ATTEMPTS"),
        }
    }
}

impl ArchiveSettings {
    fn read(read: &mut Reader<'_, '_>) -> Self {
        let minutes =
            read.parsed("CACHE_REQUEST_TIMEOUT", "a number of minutes", 10, |text| text.parse::<u32>().ok());
        let mut level = |name| {
            let levels = ["fastest", "fast", "default", "slow", "slowest"];
            read.parsed(name, "fastest, fast, default, slow or slowest", "default".to_owned(), |text| {
                levels.contains(&text).then(|| text.to_owned())
            })
        };
        let (cache_level, artifact_level) =
            (level("CACHE_COMPRESSION_LEVEL"), level("ARTIFACT_COMPRESSION_LEVEL"));
        let formats = ["zip", "tarzstd", "zipzstd"];
        let meter = read.duration("TRANSFER_METER_FREQUENCY").filter(|frequency| !frequency.is_zero());
        Self {
            cache_request_timeout: Duration::from_secs(u64::from(minutes) * 60),
            cache_fallback_key: read.text("CACHE_FALLBACK_KEY").unwrap_or_default().to_owned(),
            cache_format: read.parsed(
                "CACHE_COMPRESSION_FORMAT",
                "zip, tarzstd or zipzstd",
                "zip".to_owned(),
                |text| formats.contains(&text).then(|| text.to_owned()),
            ),
            cache_level,
            artifact_level,
            transfer_meter: meter.map(|frequency| frequency.max(Duration::from_secs(1))),
            artifacts_metadata: read.boolean("RUNNER_GENERATE_ARTIFACTS_METADATA", false),
        }
    }
}

fn read_attempts(read: &mut Reader<'_, '_>, name: &'static str) -> u32 {
    let attempts = read.parsed(name, "a number from 1 to 10", 1, |text| text.parse::<u32>().ok());
    let clamped = attempts.clamp(1, 10);
    if clamped != attempts {
        read.warn(format!("{name}: {attempts} is not from 1 to 10, using {clamped}"));
    }
    clamped
}

fn read_timeout(read: &mut Reader<'_, '_>, name: &'static str, job_timeout: Duration) -> Option<Duration> {
    let timeout = read.duration(name).filter(|timeout| !timeout.is_zero())?;
    if timeout > job_timeout {
        read.warn(format!(
            "{name}: {} is longer than the job's timeout of {}, using the default",
            format_duration(timeout),
            format_duration(job_timeout)
        ));
        return None;
    }
    Some(timeout)
}

fn read_debug(read: &mut Reader<'_, '_>, name: &'static str, defaults: SettingDefaults) -> bool {
    let wanted = read.boolean(name, false);
    if wanted && defaults.debug_trace_disabled {
        read.warn(format!("{name}: not allowed on this runner"));
    }
    wanted && !defaults.debug_trace_disabled
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULTS: SettingDefaults = SettingDefaults {
        allow_git_fetch: true,
        git_depth: 20,
        job_timeout: Duration::from_secs(3600),
        debug_trace_disabled: false,
    };

    fn read(variables: &[(&str, &str)], defaults: SettingDefaults) -> (JobSettings, Vec<String>) {
        let mut warnings = Vec::new();
        let value =
            |name: &str| variables.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value);
        (JobSettings::read(value, defaults, &mut warnings), warnings)
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let (settings, warnings) = read(&[], DEFAULTS);
        assert_eq!(warnings, [""; 0]);
        assert_eq!(settings.git.strategy, GitStrategy::Fetch);
        assert!(settings.git.checkout);
        assert_eq!(settings.git.clean_flags, Some(vec!["-ffdx".to_owned()]));
        assert_eq!(settings.git.fetch_flags, ["--prune", "--quiet"]);
        assert_eq!(settings.git.submodule_strategy, SubmoduleStrategy::None);
        assert_eq!(settings.git.submodule_depth, 20);
        assert_eq!(settings.attempts.get_sources, 1);
        assert_eq!(settings.script_timeout, None);
        assert_eq!(settings.after_script_timeout, Duration::from_secs(300));
        assert!(settings.after_script_ignore_errors);
        assert_eq!(settings.archives.cache_request_timeout, Duration::from_secs(600));
        assert_eq!(settings.archives.cache_format, "zip");
        let (settings, _) = read(&[], SettingDefaults { allow_git_fetch: false, ..DEFAULTS });
        assert_eq!(settings.git.strategy, GitStrategy::Clone);
    }

    #[test]
    fn values_are_read() {
        let (settings, warnings) = read(
            &[
                ("GIT_STRATEGY", "empty"),
                ("GIT_CLEAN_FLAGS", "none"),
                ("GIT_FETCH_EXTRA_FLAGS", "  --no-tags\t-v "),
                ("GIT_SUBMODULE_STRATEGY", "recursive"),
                ("GIT_SUBMODULE_PATHS", "a :(exclude)b"),
                ("GIT_SUBMODULE_DEPTH", "3"),
                ("GET_SOURCES_ATTEMPTS", "3"),
                ("RUNNER_SCRIPT_TIMEOUT", "30m"),
                ("RUNNER_AFTER_SCRIPT_TIMEOUT", "1h0m0s"),
                ("TRANSFER_METER_FREQUENCY", "10ms"),
                ("CI_DEBUG_TRACE", "1"),
            ],
            DEFAULTS,
        );
        assert_eq!(warnings, [""; 0]);
        assert_eq!(settings.git.strategy, GitStrategy::Empty);
        assert_eq!(settings.git.clean_flags, None);
        assert_eq!(settings.git.fetch_flags, ["--no-tags", "-v"]);
        assert_eq!(settings.git.submodule_strategy, SubmoduleStrategy::Recursive);
        assert_eq!(settings.git.submodule_paths, ["a", ":(exclude)b"]);
        assert_eq!(settings.git.submodule_depth, 3);
        assert_eq!(settings.attempts.get_sources, 3);
        assert_eq!(settings.script_timeout, Some(Duration::from_secs(1800)));
        assert_eq!(settings.after_script_timeout, Duration::from_secs(3600));
        assert_eq!(settings.archives.transfer_meter, Some(Duration::from_secs(1)));
        assert!(settings.debug_trace);
    }

    #[test]
    fn unusable_values_are_named_and_replaced() {
        let (settings, warnings) = read(
            &[
                ("GIT_STRATEGY", "pull"),
                ("GIT_CHECKOUT", "yes"),
                ("GET_SOURCES_ATTEMPTS", "11"),
                ("RESTORE_CACHE_ATTEMPTS", "many"),
                ("RUNNER_SCRIPT_TIMEOUT", "90"),
                ("RUNNER_AFTER_SCRIPT_TIMEOUT", "2h"),
                ("CACHE_COMPRESSION_LEVEL", "11"),
                ("CI_DEBUG_SERVICES", "true"),
            ],
            SettingDefaults { debug_trace_disabled: true, ..DEFAULTS },
        );
        insta::assert_snapshot!(warnings.join("\n"), @r"
        GIT_STRATEGY: expected clone, fetch, none or empty, got `pull`; using the default
        GIT_CHECKOUT: expected true or false, got `yes`; using the default
        GET_SOURCES_ATTEMPTS: 11 is not from 1 to 10, using 10
        RESTORE_CACHE_ATTEMPTS: expected a number from 1 to 10, got `many`; using the default
        CACHE_COMPRESSION_LEVEL: expected fastest, fast, default, slow or slowest, got `11`; using the default
        RUNNER_SCRIPT_TIMEOUT: not a duration such as `90s`, `45m` or `1h30m`: `90`; using the default
        RUNNER_AFTER_SCRIPT_TIMEOUT: 2h0m0s is longer than the job's timeout of 1h0m0s, using the default
        CI_DEBUG_SERVICES: not allowed on this runner
        ");
        assert_eq!(settings.attempts.get_sources, 10);
        assert_eq!(settings.script_timeout, None);
        assert_eq!(settings.after_script_timeout, Duration::from_secs(300));
        assert!(!settings.debug_services);
    }

    proptest! {
        #[test]
        fn any_value_is_survived(value in ".*|[0-9a-z -]*") {
            let mut warnings = Vec::new();
            JobSettings::read(|_| Some(value.as_str()), DEFAULTS, &mut warnings);
            prop_assert!(warnings.iter().all(|warning| !warning.is_empty()));
        }
    }
}
