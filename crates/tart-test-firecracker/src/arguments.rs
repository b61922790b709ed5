//! The command line.

use std::path::PathBuf;

use crate::plan::Plan;

/// What the command line says.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) version: bool,
    pub(crate) socket: PathBuf,
    pub(crate) plan: Plan,
}

/// Reads it as strictly as Firecracker does.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut words = words;
    let mut arguments = Arguments { socket: "/run/firecracker.socket".into(), ..Arguments::default() };
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("The argument '{word}' requires a value, but none was supplied."))
        };
        match word.as_str() {
            "--version" => arguments.version = true,
            "--api-sock" => arguments.socket = value()?.into(),
            "--id" => check_id(&value()?)?,
            "--fake" => {
                let text = std::fs::read_to_string(value()?).map_err(|error| error.to_string())?;
                arguments.plan = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            }
            "--boot-timer" | "--no-seccomp" | "--enable-pci" => {}
            "--log-path" | "--level" | "--metrics-path" | "--http-api-max-payload-size" => drop(value()?),
            _ => {
                return Err(format!(
                    "Found argument '{word}' which wasn't expected, or isn't valid in this context."
                ));
            }
        }
    }
    Ok(arguments)
}

fn check_id(id: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=64).contains(&id.len()) && id.chars().all(legal) {
        Ok(())
    } else {
        Err(format!("Invalid instance ID: {id}"))
    }
}
