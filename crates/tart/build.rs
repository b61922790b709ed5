//! Says what the program is built from, and puts the guest's agent into it if `TART_AGENT_BINARY` names one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    embed_agent();
    println!("cargo::rustc-env=TART_REVISION={}", revision());
}

/// Writes a Rust expression of the type `Option<&[u8]>` for the program to include.
fn embed_agent() {
    println!("cargo::rerun-if-env-changed=TART_AGENT_BINARY");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let agent = env::var_os("TART_AGENT_BINARY").filter(|path| !path.is_empty()).map(PathBuf::from);
    let expression = match agent {
        None => "None".to_owned(),
        Some(path) => {
            let path = path.canonicalize().unwrap_or_else(|error| {
                panic!("TART_AGENT_BINARY names {}, which cannot be used: {error}", path.display())
            });
            println!("cargo::rerun-if-changed={}", path.display());
            format!("Some(include_bytes!({path:?}))")
        }
    };
    fs::write(out.join("agent.rs"), expression).expect("cargo's output directory is writable");
}

/// The commit, shortened; `HEAD` outside of a repository.
fn revision() -> String {
    println!("cargo::rerun-if-env-changed=TART_REVISION");
    if let Ok(revision) = env::var("TART_REVISION") {
        return revision;
    }
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|text| !text.is_empty())
    };
    // Every commit and every change of the branch appends to it.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=8", "HEAD"]).unwrap_or_else(|| "HEAD".to_owned())
}
