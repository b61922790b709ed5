//! How the fake behaves.

use serde::Deserialize;

use crate::memory::Manner;

/// How the fake behaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plan {
    /// The version that it is.
    pub(crate) version: String,
    /// Milliseconds until it listens.
    pub(crate) delay_ms: u64,
    /// The path of the request at which it ends, and its exit code.
    pub(crate) dies_at: Option<(String, u8)>,
    /// The path of the request that it answers with nonsense.
    pub(crate) nonsense_at: Option<String>,
    /// The path of the request that it never answers.
    pub(crate) silent_at: Option<String>,
    /// Whether its guest reports to the host.
    pub(crate) reports: bool,
    /// Connections to the guest that are closed before one is accepted.
    pub(crate) closes: u32,
    /// What it answers to a connection instead of `OK`.
    pub(crate) answer: Option<String>,
    /// Bytes that its guest prints.
    pub(crate) prints: usize,
    /// Where the files that it saves lead instead.
    pub(crate) saves_links: Option<String>,
    /// Lines that its guest makes it log.
    pub(crate) warnings: usize,
    /// How it introduces memory that is served page by page.
    pub(crate) memory: Manner,
    /// How its guest ends the machine after the start.
    pub(crate) exits: Option<u8>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            version: "1.16.1".to_owned(),
            delay_ms: 0,
            dies_at: None,
            nonsense_at: None,
            silent_at: None,
            reports: true,
            closes: 0,
            answer: None,
            prints: 0,
            saves_links: None,
            warnings: 0,
            memory: Manner::Proper,
            exits: None,
        }
    }
}

/// The plan at the program's end, or what is usual.
pub(crate) fn own() -> Result<Plan, String> {
    match crate::own_plan().map_err(|error| error.to_string())? {
        Some(text) => serde_json::from_str(&text).map_err(|error| error.to_string()),
        None => Ok(Plan::default()),
    }
}

impl Plan {
    /// The minor version.
    pub(crate) fn minor(&self) -> u32 {
        self.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }
}
