//! PID 1 of every guest: runs commands, moves files, reports.
fn main() {}
