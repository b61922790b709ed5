//! `fake-firecracker`: behaves as Firecracker does towards its API's client, down to what it refuses, and runs no guest.
//!
//! It takes Firecracker's own arguments. A plan says what version it is, and how it misbehaves: at the program's end, where
//! it is also in a jail, or in a file that `--fake FILE` names before the arguments. Facts of the API are from the
//! project's reference (microvm.md 1); it shares no type with the driver that is tested with it.

use std::process::ExitCode;

use tart_test_firecracker::{Behind, firecracker};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    firecracker(Behind::Nothing).await
}
