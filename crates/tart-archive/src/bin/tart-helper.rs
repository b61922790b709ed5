//! The helper as a program of its own, for tests and for trying it by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    tart_archive::helper(std::env::args().nth(1).as_deref())
}
