//! Feature flags: which there are, and which are on for a job.

use std::collections::BTreeMap;

use crate::literal::parse_bool;

macro_rules! flags {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $default:literal;)+) => {
        /// A feature flag that GitLab Runner knows. Those without effect here are listed because users set them and
        /// see them in the log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Flag {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Flag {
            /// Every flag, ordered by name.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The variable that sets the flag.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether the flag is on when nothing sets it.
            pub fn default_value(self) -> bool {
                match self { $(Self::$variant => $default,)+ }
            }

            /// The flag with this name.
            pub fn by_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

flags! {
    /// What a failed extraction left is removed.
    CleanUpFailedCacheExtract = "FF_CLEAN_UP_FAILED_CACHE_EXTRACT", false;
    /// Scripts run as steps of the concrete runner.
    Concrete = "FF_CONCRETE", false;
    /// The runner token is not rotated.
    DisableAutomaticTokenRotation = "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION", false;
    /// No effect: about Windows.
    DisablePowershellStdin = "FF_DISABLE_POWERSHELL_STDIN", false;
    /// No effect: sources are always made as the image's user.
    DisableUmaskForDockerExecutor = "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR", false;
    /// No effect: about Kubernetes.
    DisableUmaskForKubernetesExecutor = "FF_DISABLE_UMASK_FOR_KUBERNETES_EXECUTOR", false;
    /// An explicit check after every command of a script.
    BashExitCodeCheck = "FF_ENABLE_BASH_EXIT_CODE_CHECK", false;
    /// No effect: the VM is thrown away.
    JobCleanup = "FF_ENABLE_JOB_CLEANUP", false;
    /// `${{ job.inputs.x }}` is replaced in the job.
    JobInputsInterpolation = "FF_ENABLE_JOB_INPUTS_INTERPOLATION", true;
    /// Metrics have labels of many values.
    ExportHighCardinalityMetrics = "FF_EXPORT_HIGH_CARDINALITY_METRICS", false;
    /// No effect: remote URLs never carry tokens.
    GitUrlsWithoutTokens = "FF_GIT_URLS_WITHOUT_TOKENS", false;
    /// Cache keys are hashed instead of sanitised.
    HashCacheKeys = "FF_HASH_CACHE_KEYS", false;
    /// No effect: about Kubernetes.
    KubernetesHonorEntrypoint = "FF_KUBERNETES_HONOR_ENTRYPOINT", false;
    /// The runner's own log names the images of a job.
    LogImagesConfiguredForJob = "FF_LOG_IMAGES_CONFIGURED_FOR_JOB", false;
    /// All kinds of GitLab tokens are masked.
    MaskAllDefaultTokens = "FF_MASK_ALL_DEFAULT_TOKENS", true;
    /// A network for each job. Tart always has one.
    NetworkPerBuild = "FF_NETWORK_PER_BUILD", false;
    /// No effect: quoting is always POSIX.
    PosixlyCorrectEscapes = "FF_POSIXLY_CORRECT_ESCAPES", false;
    /// No effect: about Kubernetes.
    PrintPodEvents = "FF_PRINT_POD_EVENTS", false;
    /// No effect in this runner.
    ResolveFullTlsChain = "FF_RESOLVE_FULL_TLS_CHAIN", false;
    /// Every multi-line command becomes a section of the log.
    ScriptSections = "FF_SCRIPT_SECTIONS", false;
    /// Scripts run as steps.
    ScriptToStepMigration = "FF_SCRIPT_TO_STEP_MIGRATION", false;
    /// A missing secret fails the job.
    SecretResolvingFailsIfMissing = "FF_SECRET_RESOLVING_FAILS_IF_MISSING", true;
    /// A job can be suspended and resumed.
    SuspendableEnvironments = "FF_SUSPENDABLE_ENVIRONMENTS", false;
    /// Every line of the log carries its time.
    Timestamps = "FF_TIMESTAMPS", true;
    /// Job requests adapt to how many jobs there are.
    AdaptiveRequestConcurrency = "FF_USE_ADAPTIVE_REQUEST_CONCURRENCY", true;
    /// No effect: about Kubernetes.
    AdvancedPodSpecConfiguration = "FF_USE_ADVANCED_POD_SPEC_CONFIGURATION", false;
    /// Artifacts of other jobs come straight from object storage.
    DirectDownload = "FF_USE_DIRECT_DOWNLOAD", true;
    /// No effect in this runner.
    DockerAutoscalerDialStdio = "FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO", true;
    /// No effect: about Kubernetes.
    DumbInitWithKubernetesExecutor = "FF_USE_DUMB_INIT_WITH_KUBERNETES_EXECUTOR", false;
    /// The keep-alive interval follows the update interval.
    DynamicTraceForceSendInterval = "FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL", false;
    /// Waits between the attempts of a stage double.
    ExponentialBackoffStageRetry = "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", true;
    /// No effect: there is one archiver.
    Fastzip = "FF_USE_FASTZIP", true;
    /// No effect in this runner.
    FleetingAcquireHeartbeats = "FF_USE_FLEETING_ACQUIRE_HEARTBEATS", false;
    /// Git's requests carry the correlation id of the job request.
    GitalyCorrelationId = "FF_USE_GITALY_CORRELATION_ID", true;
    /// Git may use the bundles the server advertises.
    GitBundleUris = "FF_USE_GIT_BUNDLE_URIS", true;
    /// No effect: `clone` is a fetch into an empty repository.
    GitNativeClone = "FF_USE_GIT_NATIVE_CLONE", false;
    /// Git authenticates without being asked to.
    GitProactiveAuth = "FF_USE_GIT_PROACTIVE_AUTH", false;
    /// No effect: the guest has an init.
    InitWithDockerExecutor = "FF_USE_INIT_WITH_DOCKER_EXECUTOR", false;
    /// Jobs come from the job router.
    JobRouter = "FF_USE_JOB_ROUTER", false;
    /// No effect: scripts are not evaluated from a string.
    LegacyBashEval = "FF_USE_LEGACY_BASH_EVAL", false;
    /// No effect in this runner.
    LegacyGcsCacheAdapter = "FF_USE_LEGACY_GCS_CACHE_ADAPTER", false;
    /// No effect: about Kubernetes.
    LegacyKubernetesExecutionStrategy = "FF_USE_LEGACY_KUBERNETES_EXECUTION_STRATEGY", false;
    /// No effect in this runner.
    LegacyS3CacheAdapter = "FF_USE_LEGACY_S3_CACHE_ADAPTER", false;
    /// No effect: there are no containers.
    NativeContainerStop = "FF_USE_NATIVE_CONTAINER_STOP", false;
    /// Artifacts are transferred in parallel parts.
    ParallelArtifactTransfer = "FF_USE_PARALLEL_ARTIFACT_TRANSFER", false;
    /// Caches are transferred in parallel parts.
    ParallelCacheTransfer = "FF_USE_PARALLEL_CACHE_TRANSFER", false;
    /// No effect: about Kubernetes.
    PodActiveDeadlineSeconds = "FF_USE_POD_ACTIVE_DEADLINE_SECONDS", true;
    /// No effect: about Windows.
    PowershellPathResolver = "FF_USE_POWERSHELL_PATH_RESOLVER", false;
    /// No effect: about Windows.
    WindowsJobObject = "FF_USE_WINDOWS_JOB_OBJECT", false;
    /// No effect: about Windows.
    WindowsLegacyProcessStrategy = "FF_USE_WINDOWS_LEGACY_PROCESS_STRATEGY", false;
    /// No effect: about Kubernetes.
    WaitForPodToBeReachable = "FF_WAIT_FOR_POD_TO_BE_REACHABLE", false;
}

/// The flags of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureFlags {
    changed: BTreeMap<Flag, bool>,
}

impl FeatureFlags {
    /// Decides every flag: the runner's configuration wins, then the job's variables, then the runner's environment,
    /// then the default. Names that are no flag are ignored, because jobs set all sorts of `FF_` variables.
    ///
    /// A job's value that is no boolean leaves the flag as it would be without it, and adds to `warnings`.
    pub fn resolve<'a>(
        configured: &BTreeMap<String, bool>,
        job_variable: impl Fn(&str) -> Option<&'a str>,
        environment: impl Fn(&str) -> Option<&'a str>,
        warnings: &mut Vec<String>,
    ) -> Self {
        let mut changed = BTreeMap::new();
        for &flag in Flag::ALL {
            let mut read = |text: Option<&str>| {
                let text = text.filter(|text| !text.is_empty())?;
                let value = parse_bool(text);
                if value.is_none() {
                    warnings.push(format!(
                        "feature flag {} ignored: `{text}` is neither true nor false",
                        flag.name()
                    ));
                }
                value
            };
            let value = configured
                .get(flag.name())
                .copied()
                .or_else(|| read(job_variable(flag.name())))
                .or_else(|| read(environment(flag.name())))
                .unwrap_or(flag.default_value());
            if value != flag.default_value() {
                changed.insert(flag, value);
            }
        }
        Self { changed }
    }

    /// Every flag at its default.
    pub fn defaults() -> Self {
        Self { changed: BTreeMap::new() }
    }

    /// Whether a flag is on.
    pub fn is_on(&self, flag: Flag) -> bool {
        self.changed.get(&flag).copied().unwrap_or(flag.default_value())
    }

    /// The flags that differ from their default, ordered by name.
    pub fn changed(&self) -> impl Iterator<Item = (Flag, bool)> {
        self.changed.iter().map(|(flag, on)| (*flag, *on))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::feature_flags_line;

    #[test]
    fn the_table_is_ordered_and_reversible() {
        assert_eq!(Flag::ALL.len(), 51);
        assert!(Flag::ALL.windows(2).all(|pair| pair[0].name() < pair[1].name()));
        for &flag in Flag::ALL {
            assert_eq!(Flag::by_name(flag.name()), Some(flag));
        }
        assert_eq!(Flag::by_name("FF_OF_THE_FUTURE"), None);
    }

    #[test]
    fn the_configuration_wins_over_the_job_and_the_job_over_the_environment() {
        let configured =
            BTreeMap::from([("FF_TIMESTAMPS".to_owned(), true), ("FF_UNKNOWN".to_owned(), true)]);
        let job = |name: &str| match name {
            "FF_TIMESTAMPS" | "FF_HASH_CACHE_KEYS" => Some("false"),
            "FF_SCRIPT_SECTIONS" => Some("yes"),
            _ => None,
        };
        let environment = |name: &str| match name {
            "FF_HASH_CACHE_KEYS" | "FF_SCRIPT_SECTIONS" | "FF_ENABLE_BASH_EXIT_CODE_CHECK" => Some("1"),
            _ => None,
        };
        let mut warnings = Vec::new();
        let flags = FeatureFlags::resolve(&configured, job, environment, &mut warnings);
        assert!(flags.is_on(Flag::Timestamps));
        assert!(!flags.is_on(Flag::HashCacheKeys));
        assert!(flags.is_on(Flag::ScriptSections));
        assert_eq!(warnings, ["feature flag FF_SCRIPT_SECTIONS ignored: `yes` is neither true nor false"]);
        assert_eq!(
            feature_flags_line(&flags).as_deref(),
            Some("  feature flags: FF_ENABLE_BASH_EXIT_CODE_CHECK:true, FF_SCRIPT_SECTIONS:true")
        );
        assert_eq!(feature_flags_line(&FeatureFlags::defaults()), None);
    }
}
