//! `fake-firecracker`: behaves as Firecracker does towards its API's client, down to what it refuses, and runs no guest.
//!
//! It takes Firecracker's own arguments. A [`plan::Plan`] says what version it is, and how it misbehaves: at the program's
//! end, where it is also in a jail, or in a file that `--fake FILE` names before the arguments. Facts of the API are from the project's reference (microvm.md 1); it shares no type with the
//! driver that is tested with it.

mod arguments;
mod memory;
mod plan;
mod reports;
mod rules;
mod saved;
mod server;
mod state;
mod vsock;

use std::process::ExitCode;

/// The code for arguments that it does not know.
const BAD_ARGUMENT: u8 = 153;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match plan::own().and_then(|plan| arguments::parse(std::env::args().skip(1), plan)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            say(&format!("Arguments parsing error: {problem}"));
            return ExitCode::from(BAD_ARGUMENT);
        }
    };
    if arguments.version {
        say(&format!("Firecracker v{}\n", arguments.plan.version));
        return ExitCode::SUCCESS;
    }
    match server::run(arguments).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("Error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line where Firecracker prints its log and the guest's console.
fn say(text: &str) {
    use std::io::Write as _;
    // A reader that is gone does not matter.
    let _gone = writeln!(std::io::stdout(), "{text}");
}
