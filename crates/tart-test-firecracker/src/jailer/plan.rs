//! How the fake misbehaves.

use serde::Deserialize;

/// What the jailer has just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    Arguments,
    Copied,
    Limited,
    Chrooted,
    Devices,
    Recorded,
}

/// How the fake behaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plan {
    /// The version that it is.
    pub(crate) version: String,
    /// After what it fails.
    fails_after: Option<Stage>,
    /// After what it hangs.
    hangs_after: Option<Stage>,
    /// It does not get into its control group.
    pub(crate) stays: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { version: "1.16.1".to_owned(), fails_after: None, hangs_after: None, stays: false }
    }
}

impl Plan {
    /// The minor version.
    pub(crate) fn minor(&self) -> u32 {
        self.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }

    /// Fails or hangs here if that is the plan.
    pub(crate) fn reach(&self, stage: Stage) -> Result<(), String> {
        if self.hangs_after == Some(stage) {
            loop {
                std::thread::park();
            }
        }
        if self.fails_after == Some(stage) { Err(format!("it fails after {stage:?}")) } else { Ok(()) }
    }
}

/// The plan at the program's end, or what is usual.
pub(crate) fn own() -> Result<Plan, String> {
    match tart_test_firecracker::own_plan().map_err(|error| error.to_string())? {
        Some(text) => serde_json::from_str(&text).map_err(|error| error.to_string()),
        None => Ok(Plan::default()),
    }
}
