//! Strict fakes of Firecracker and its jailer. They share no type with the driver that is tested with them.
//!
//! The programs are `fake-firecracker`, which runs no guest, `standin-firecracker`, whose guest truly boots, and
//! `fake-jailer`. A jailed program has no other files than those that the driver gives it, so how a fake behaves can be
//! written at the end of its own file: [`with_plan`].

mod arguments;
mod guest;
mod memory;
mod plan;
mod reports;
mod rules;
mod saved;
mod server;
mod state;
mod vsock;

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::ExitCode,
};

/// The code for arguments that it does not know.
const BAD_ARGUMENT: u8 = 153;

/// What is behind the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing: it is only played that a guest runs.
    Nothing,
    /// A guest that boots.
    Guest,
}

/// Runs as Firecracker would with this process's arguments.
pub async fn firecracker(behind: Behind) -> ExitCode {
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
    match server::run(arguments, behind).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("Error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line where Firecracker prints its log and the guest's console.
fn say(text: &str) {
    // A reader that is gone does not matter.
    let _gone = writeln!(std::io::stdout(), "{text}");
}

/// Ends a program that has a plan, after the plan's length in 32 bits.
const MARK: &[u8; 8] = b"tartplan";

/// Longest plan, in bytes.
const MAX_PLAN: u64 = 64 * 1024;

/// Copies a program and writes a plan, in JSON, to the copy's end.
///
/// # Errors
/// Those of the files; a plan that is too long.
pub fn with_plan(program: &Path, plan: &str, to: &Path) -> io::Result<()> {
    let len = u32::try_from(plan.len()).ok().filter(|len| u64::from(*len) <= MAX_PLAN);
    let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the plan is too long"))?;
    fs::copy(program, to)?;
    let mut copy = File::options().append(true).open(to)?;
    copy.write_all(&[plan.as_bytes(), &len.to_le_bytes(), MARK].concat())?;
    fs::set_permissions(to, Permissions::from_mode(0o755))
}

/// The plan at the end of this program, if there is one. The program is found by the name that it was started with:
/// a chroot has no `/proc`.
///
/// # Errors
/// Those of the file; an end that is no plan.
pub fn own_plan() -> io::Result<Option<String>> {
    let Some(name) = std::env::args_os().next().filter(|name| name.as_encoded_bytes().contains(&b'/')) else {
        return Ok(None);
    };
    let mut program = File::open(name)?;
    let len = program.metadata()?.len();
    let Some(end) = len.checked_sub(12) else { return Ok(None) };
    program.seek(SeekFrom::Start(end))?;
    let (mut plan_len, mut mark) = ([0; 4], [0; 8]);
    program.read_exact(&mut plan_len)?;
    program.read_exact(&mut mark)?;
    if mark != *MARK {
        return Ok(None);
    }
    let plan_len = u64::from(u32::from_le_bytes(plan_len));
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the program's end is no plan");
    let start = end.checked_sub(plan_len).filter(|_| plan_len <= MAX_PLAN).ok_or_else(malformed)?;
    program.seek(SeekFrom::Start(start))?;
    let mut plan = String::new();
    program.take(plan_len).read_to_string(&mut plan)?;
    Ok(Some(plan))
}
