//! Messages on the guest's console, which the host keeps the tail of for its failure reports.

use std::{fmt::Display, io::Write};

/// Writes one line. PID 1's standard error is the console; a console that does not take it is no reason to stop.
pub fn say(line: impl Display) {
    let text = format!("tart-agent: {line}\n");
    let _unreported = std::io::stderr().write_all(text.as_bytes());
}
