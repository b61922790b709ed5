//! What the program says of itself.

use tart_assets::AgentSource;
use tart_gitlab::{architecture, platform};

/// Its name.
pub(crate) const NAME: &str = "tart";

/// Its version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from.
pub(crate) const REVISION: &str = env!("TART_REVISION");

/// The guest's agent, if it was built in.
const AGENT: Option<&'static [u8]> = include!(concat!(env!("OUT_DIR"), "/agent.rs"));

/// Where the guest's agent comes from.
pub(crate) fn agent() -> AgentSource {
    AGENT.map_or(AgentSource::Installed, AgentSource::Embedded)
}

/// As jobs see it.
pub(crate) fn of_jobs() -> tart_job::context::Product {
    tart_job::context::Product {
        name: NAME.to_owned(),
        version: VERSION.to_owned(),
        revision: REVISION.to_owned(),
        os: platform().to_owned(),
        architecture: architecture().to_owned(),
    }
}
