//! `fake-jailer`: takes the arguments of Firecracker's jailer as strictly as that does, and truly jails the program.
//!
//! Facts are from the project's reference (microvm.md 1.6). It does one thing that the real one does not: Firecracker is a
//! static program and its fake is not, so the directories of the system's libraries are bound into the jail, in the jail's
//! own mount namespace and for reading only. A [`plan::Plan`] at the program's end says where it fails.

mod arguments;
mod jail;
mod plan;

use std::{convert::Infallible, io::Write as _, process::ExitCode};

use arguments::Command;
use plan::Stage;

fn main() -> ExitCode {
    let Err(problem) = run();
    if problem.is_empty() {
        return ExitCode::SUCCESS;
    }
    // A reader that is gone does not matter.
    let _gone = writeln!(std::io::stderr(), "Error: {problem}");
    ExitCode::FAILURE
}

/// Returns only why it does not run the program; nothing if there was none to run.
fn run() -> Result<Infallible, String> {
    let plan = plan::own()?;
    jail::close_descriptors()?;
    let jail = match arguments::parse(std::env::args().skip(1), plan.minor())? {
        Command::Jail(jail) => jail,
        Command::Version => {
            let _gone = writeln!(std::io::stdout(), "Jailer v{}\n", plan.version);
            return Err(String::new());
        }
    };
    plan.reach(Stage::Arguments)?;
    jail.enter(&plan)
}
