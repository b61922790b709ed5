use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a job failed, as GitLab classifies it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// A script ended with another exit code than 0.
    ScriptFailure,
    /// The runner, or the machine it is on.
    RunnerSystemFailure,
    /// A time limit.
    JobExecutionTimeout,
    /// The image could not be fetched.
    ImagePullFailure,
    /// None of the reasons the server knows.
    UnknownFailure,
    /// Something the job's author or the runner's administrator can correct.
    RunnerConfigurationError,
    /// A service outside of GitLab and the runner.
    RunnerExternalDependencyFailure,
    /// The runner was told to stop.
    RunnerInterrupted,
    /// Somebody cancelled the job. No server knows this one.
    JobCanceled,
    /// Any other text.
    Other(String),
}

/// What every server knows, whether it says so or not.
const ALWAYS_KNOWN: [FailureReason; 3] =
    [FailureReason::ScriptFailure, FailureReason::RunnerSystemFailure, FailureReason::JobExecutionTimeout];

impl FailureReason {
    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::ScriptFailure => "script_failure",
            Self::RunnerSystemFailure => "runner_system_failure",
            Self::JobExecutionTimeout => "job_execution_timeout",
            Self::ImagePullFailure => "image_pull_failure",
            Self::UnknownFailure => "unknown_failure",
            Self::RunnerConfigurationError => "runner_configuration_error",
            Self::RunnerExternalDependencyFailure => "runner_external_dependency_failure",
            Self::RunnerInterrupted => "runner_interrupted",
            Self::JobCanceled => "job_canceled",
            Self::Other(text) => text,
        }
    }

    /// The reason to send to a server that says it knows these (`features.failure_reasons` of the job; protocol
    /// reference 4.3).
    pub fn for_server<S: AsRef<str>>(&self, known: &[S]) -> Self {
        if self.as_str().is_empty() {
            return Self::ScriptFailure;
        }
        let knows = |reason: &Self| {
            ALWAYS_KNOWN.contains(reason) || known.iter().any(|known| known.as_ref() == reason.as_str())
        };
        let mut reason = Some(self.clone());
        while let Some(candidate) = reason {
            if knows(&candidate) {
                return candidate;
            }
            reason = candidate.older();
        }
        Self::UnknownFailure
    }

    /// What servers got before they knew this reason. Leads to one that is always known, or to nothing.
    fn older(&self) -> Option<Self> {
        match self {
            Self::ImagePullFailure | Self::RunnerExternalDependencyFailure => Some(Self::RunnerSystemFailure),
            Self::RunnerConfigurationError => Some(Self::ScriptFailure),
            _ => None,
        }
    }
}

impl From<&str> for FailureReason {
    fn from(text: &str) -> Self {
        match text {
            "script_failure" => Self::ScriptFailure,
            "runner_system_failure" => Self::RunnerSystemFailure,
            "job_execution_timeout" => Self::JobExecutionTimeout,
            "image_pull_failure" => Self::ImagePullFailure,
            "unknown_failure" => Self::UnknownFailure,
            "runner_configuration_error" => Self::RunnerConfigurationError,
            "runner_external_dependency_failure" => Self::RunnerExternalDependencyFailure,
            "runner_interrupted" => Self::RunnerInterrupted,
            "job_canceled" => Self::JobCanceled,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FailureReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for FailureReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(reason: &FailureReason, known: &[&str]) -> String {
        reason.for_server(known).to_string()
    }

    #[test]
    fn an_old_server_gets_what_it_always_knew() {
        for (reason, expected) in [
            (FailureReason::ScriptFailure, "script_failure"),
            (FailureReason::JobExecutionTimeout, "job_execution_timeout"),
            (FailureReason::ImagePullFailure, "runner_system_failure"),
            (FailureReason::RunnerConfigurationError, "script_failure"),
            (FailureReason::RunnerExternalDependencyFailure, "runner_system_failure"),
            (FailureReason::RunnerInterrupted, "unknown_failure"),
            (FailureReason::JobCanceled, "unknown_failure"),
            (FailureReason::Other("new_failure".into()), "unknown_failure"),
            (FailureReason::Other(String::new()), "script_failure"),
        ] {
            assert_eq!(sent(&reason, &[]), expected, "{reason}");
        }
    }

    #[test]
    fn a_server_gets_what_it_says_it_knows() {
        let known = ["image_pull_failure", "runner_interrupted", "new_failure"];
        assert_eq!(sent(&FailureReason::ImagePullFailure, &known), "image_pull_failure");
        assert_eq!(sent(&FailureReason::RunnerInterrupted, &known), "runner_interrupted");
        assert_eq!(sent(&FailureReason::Other("new_failure".into()), &known), "new_failure");
        assert_eq!(sent(&FailureReason::RunnerConfigurationError, &known), "script_failure");
    }

    proptest! {
        #[test]
        fn every_text_is_kept(text in "[a-z_]{0,30}|script_failure|job_canceled") {
            let reason = FailureReason::from(text.as_str());
            prop_assert_eq!(reason.as_str(), text.as_str());
            let json = serde_json::to_string(&reason).expect("text");
            prop_assert_eq!(serde_json::from_str::<FailureReason>(&json).expect("text"), reason);
        }
    }
}
