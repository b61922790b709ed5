use serde::{Deserialize, Serialize};

/// The state of a job in an update. A runner never says `canceled`: the server makes that of what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Assigned but not begun.
    Pending,
    /// Accepted, or still at it.
    Running,
    /// Ended well.
    Success,
    /// Ended otherwise.
    Failed,
}

impl JobState {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }
}
