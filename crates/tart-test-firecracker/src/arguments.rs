//! The command line.

use std::{collections::BTreeSet, path::PathBuf};

use crate::plan::Plan;

/// What the command line says.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) version: bool,
    pub(crate) socket: PathBuf,
    pub(crate) plan: Plan,
}

/// Reads it as strictly as Firecracker does. The plan is that of the program's end, or of `--fake`.
pub(crate) fn parse(words: impl Iterator<Item = String>, plan: Plan) -> Result<Arguments, String> {
    let mut words = words;
    let mut arguments = Arguments { socket: "/run/firecracker.socket".into(), plan, ..Arguments::default() };
    let mut seen = BTreeSet::new();
    while let Some(word) = words.next() {
        if !seen.insert(word.clone()) {
            return Err(format!("The argument '{word}' was provided more than once."));
        }
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
            // The jailer's.
            "--start-time-us" | "--start-time-cpu-us" | "--parent-cpu-time-us" => {
                let value = value()?;
                value.parse::<u64>().map_err(|_| format!("'{value}' is no time for '{word}'."))?;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        parse(line.split_whitespace().map(str::to_owned), Plan::default())
    }

    #[test]
    fn what_the_jailer_gives_is_known_and_nothing_may_be_given_twice() {
        let jailed = "--id a-1 --start-time-us 1 --start-time-cpu-us 2 --parent-cpu-time-us 3";
        assert_eq!(parsed(jailed).unwrap().socket, PathBuf::from("/run/firecracker.socket"));
        assert!(
            parsed(&format!("{jailed} --id a-1")).unwrap_err().contains("'--id' was provided more than once")
        );
        assert!(parsed("--id a_1").unwrap_err().contains("Invalid instance ID"));
        assert!(parsed("--start-time-us soon").unwrap_err().contains("no time"));
        assert!(parsed("--frobnicate").unwrap_err().contains("wasn't expected"));
        assert!(parsed("--id").unwrap_err().contains("requires a value"));
    }
}
