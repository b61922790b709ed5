//! The `tart` command.
fn main() {}
