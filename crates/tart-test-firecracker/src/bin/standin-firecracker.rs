//! `standin-firecracker`: the strict fake, but the guest behind it truly boots, in QEMU with an emulated processor.
//!
//! It takes Firecracker's own arguments, and needs QEMU 7.2 or later.

use std::process::ExitCode;

use tart_test_firecracker::{Behind, firecracker};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    firecracker(Behind::Guest).await
}
