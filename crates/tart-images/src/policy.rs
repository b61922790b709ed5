//! Pull policies, in the words of the official runner.

use std::{fmt, str::FromStr};

/// When the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time: whether the name still stands for what is here, and whether the job may have it.
    Always,
    /// If the name is not known here.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::IfNotPresent => "if-not-present",
            Self::Never => "never",
        }
    }

    /// Policies as logs show them: `[always if-not-present]`.
    #[must_use]
    pub fn list(policies: &[Self]) -> String {
        let words: Vec<_> = policies.iter().map(|policy| policy.as_str()).collect();
        format!("[{}]", words.join(" "))
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no pull policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unsupported pull policy `{0}`: it is one of always, if-not-present, never")]
pub struct UnknownPolicy(String);

impl FromStr for PullPolicy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let all = [Self::Always, Self::IfNotPresent, Self::Never];
        all.into_iter().find(|policy| policy.as_str() == word).ok_or_else(|| UnknownPolicy(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_official_runner() {
        for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        insta::assert_snapshot!("sometimes".parse::<PullPolicy>().unwrap_err(), @"unsupported pull policy `sometimes`: it is one of always, if-not-present, never");
        assert_eq!(
            PullPolicy::list(&[PullPolicy::Always, PullPolicy::IfNotPresent]),
            "[always if-not-present]"
        );
    }
}
