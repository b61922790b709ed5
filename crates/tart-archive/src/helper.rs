//! The guest's helper: `archive` reads a request from its input and writes the archive to its output;
//! `extract` reads an archive from its input and takes it apart in the working directory, and `extract-cache` writes the
//! fingerprint of that to its output besides. What people should read goes to the error output.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::{ArchiveError, Purpose, Request, fingerprint};

/// The exit code that says that nothing matched, which is no failure.
pub const NOTHING: u8 = 3;
/// The longest request, in bytes.
const LONGEST_REQUEST: u64 = 4 << 20;

/// Runs the helper: `verb` is its only argument, everything else comes from its input. Exit code 3 says that there is
/// no archive since nothing matched, or nothing changed, which is no failure.
#[must_use]
pub fn helper(verb: Option<&str>) -> ExitCode {
    let result = match verb {
        Some("archive") => archive(),
        Some("extract") => extract(false),
        Some("extract-cache") => extract(true),
        _ => Err("usage: tart-helper archive|extract|extract-cache".to_owned()),
    };
    result.unwrap_or_else(|error| {
        say(&format!("ERROR: {error}"));
        ExitCode::FAILURE
    })
}

fn archive() -> Result<ExitCode, String> {
    let mut text = Vec::new();
    io::stdin().take(LONGEST_REQUEST).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let request = Request::decode(&text)?;
    let untracked = if request.untracked { untracked(&request.root)? } else { Vec::new() };
    let untracked = untracked.split(|&byte| byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec);
    let selection = request.select(untracked, &mut |line| say(&line)).map_err(|error| shown(&error))?;
    if selection.paths().len() == 0 {
        say(match request.purpose {
            Purpose::Artifacts => "ERROR: No files to upload",
            Purpose::Cache => "No files to cache.",
        });
        return Ok(ExitCode::from(NOTHING));
    }
    if !request.known.is_empty() {
        let now = fingerprint(selection.root(), selection.paths()).map_err(|error| shown(&error))?;
        if now == request.known {
            say("Archive is up to date!");
            return Ok(ExitCode::from(NOTHING));
        }
    }
    let mut out = BufWriter::with_capacity(128 << 10, io::stdout().lock());
    request.write(&selection, &mut out).map_err(|error| shown(&error))?;
    Ok(ExitCode::SUCCESS)
}

fn untracked(root: &str) -> Result<Vec<u8>, String> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "ls-files", "-o", "-z"]).current_dir(root);
    let output = git.output().map_err(|error| format!("git cannot be started: {error}"))?;
    if !output.status.success() {
        say(&format!("WARNING: untracked: {}", String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    Ok(output.stdout)
}

fn extract(cache: bool) -> Result<ExitCode, String> {
    let directory = std::env::current_dir().map_err(|error| error.to_string())?;
    let done = crate::extract(io::stdin().lock(), &directory, |archive| keep(archive, &directory));
    let done = done.map_err(|error| shown(&error))?;
    if let Some(paths) = done.paths.filter(|_| cache) {
        let left = fingerprint(&directory, paths.iter().map(Vec::as_slice)).map_err(|error| shown(&error))?;
        writeln!(io::stdout(), "{left}").map_err(|error| error.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A zip goes to a file without a name first: its directory is at its end.
fn keep(archive: &mut dyn Read, directory: &Path) -> Result<File, ArchiveError> {
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, rustix::fs::Mode::from_raw_mode(0o600));
    let mut file = File::from(file.map_err(|error| ArchiveError::Input(error.into()))?);
    io::copy(archive, &mut file).and_then(|_| file.rewind()).map_err(ArchiveError::Input)?;
    Ok(file)
}

fn shown(error: &ArchiveError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn say(line: &str) {
    // Nobody is left to tell if the error output is closed.
    let _gone = writeln!(io::stderr(), "{line}");
}
