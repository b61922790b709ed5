//! A network device served by the `passt` program.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::{AttachRequest, Attachment, NetError, Network};

/// A network device whose packets `passt` turns into ordinary sockets of the host, one process for each machine.
/// Needs no privileges. The guest reaches what the host's user reaches, but not the host's loopback.
#[derive(Debug, Clone)]
pub struct PasstNetwork {
    program: PathBuf,
}

impl PasstNetwork {
    /// Uses this program, or the `passt` of the search path.
    ///
    /// # Errors
    /// [`NetError::Program`] if it is not there.
    pub fn detect(_program: Option<&Path>) -> Result<Self, NetError> {
        todo!()
    }
}

#[async_trait]
impl Network for PasstNetwork {
    fn name(&self) -> &'static str {
        "passt"
    }

    fn describe(&self) -> String {
        format!(
            "passt ({}): jobs reach what this host reaches, except the host's loopback",
            self.program.display()
        )
    }

    async fn attach(&self, _request: &AttachRequest) -> Result<Box<dyn Attachment>, NetError> {
        todo!()
    }
}
