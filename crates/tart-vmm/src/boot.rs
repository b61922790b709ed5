//! Waiting for a guest to come up.

use std::{fmt, future::Future, time::Duration};

use crate::{Machine, VmmError};

/// Runs `ready`, which talks to the agent until it is ready, and turns everything that can go wrong meanwhile (the
/// machine ends, the time is over, the agent misbehaves) into an error that shows the machine's console. The machine
/// still runs after an error, unless it ended itself.
///
/// # Errors
/// [`VmmError::EndedInBoot`], [`VmmError::BootTimeout`] or [`VmmError::BootFailed`].
pub async fn await_boot<T, E: fmt::Display>(
    machine: &dyn Machine,
    limit: Duration,
    ready: impl Future<Output = Result<T, E>> + Send,
) -> Result<T, VmmError> {
    let console = || machine.console_tail();
    tokio::select! {
        biased;
        ready = tokio::time::timeout(limit, ready) => match ready {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => match tokio::time::timeout(END_AFTER_ERROR, machine.wait()).await {
                Ok(exit) => Err(VmmError::EndedInBoot { exit, console: console() }),
                Err(_) => Err(VmmError::BootFailed { reason: error.to_string(), console: console() }),
            },
            Err(_) => Err(VmmError::BootTimeout { limit, console: console() }),
        },
        exit = machine.wait() => Err(VmmError::EndedInBoot { exit, console: console() }),
    }
}

/// A monitor that ends breaks the agent's stream first; its end is the better explanation.
const END_AFTER_ERROR: Duration = Duration::from_millis(500);
