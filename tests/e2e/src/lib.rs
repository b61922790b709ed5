//! What end-to-end tests stand on: the real binary as a child process, a GitLab server of the test's own, and a check
//! that nothing of either is left behind.
//!
//! `TART_BINARY` names the program under test and `TART_AGENT` the guest's agent; `dev/test` builds both. Guests boot
//! from the machine's assets, or those of `TART_ASSETS_DIR`.

mod config;
mod gate;
mod leaks;
mod output;
mod process;
mod scene;

pub use config::Config;
pub use gate::{Flow, Gate};
pub use leaks::{Leftovers, left_of};
pub use process::{Process, program};
pub use scene::Scene;

use std::time::Duration;

/// How long a job with a boot and a clone may take on a loaded machine that emulates its guests.
pub const JOB: Duration = Duration::from_secs(180);

/// How long what needs no guest may take.
pub const SOON: Duration = Duration::from_secs(30);
