//! From a file to a checked [`Config`].

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::{
    address::{self, expand},
    check::{self, Lookup},
    model::Config,
    problem::{LoadError, Problem, Severity},
    schema::{self, Kind, Section, join},
    support::{self, Support},
};

/// The largest file that is read, in bytes.
pub(crate) const MAX_FILE_SIZE: u64 = 4 << 20;

/// A configuration that may be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings and notices, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file. `$VAR` in addresses and tokens is taken from the environment.
///
/// # Errors
///
/// If the file cannot be read, or with all its problems if it has any.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text = read(path)?;
    let mut loaded = parse(path, &text, &|name| std::env::var(name).ok())?;
    if let Some(warning) = exposed(path) {
        loaded.warnings.insert(0, warning);
    }
    Ok(loaded)
}

/// Checks the text of a file; `path` is only for messages and `lookup` gives the environment.
///
/// # Errors
///
/// With all problems of the text if it has any.
pub fn parse(path: &Path, text: &str, lookup: Lookup<'_>) -> Result<Loaded, LoadError> {
    let problems = check::check(path, text, lookup);
    let (errors, warnings): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    if !errors.is_empty() {
        return Err(LoadError::Invalid(errors));
    }
    let invalid = |text: String| {
        LoadError::Invalid(vec![Problem {
            path: path.into(),
            line: 1,
            column: 1,
            severity: Severity::Error,
            text,
        }])
    };
    let mut table: Table = text.parse().map_err(|_| invalid("not valid TOML".into()))?;
    if let Some(top) = schema::section("") {
        keep_meaningful(top, &mut table);
    }
    // The checker knows every key and type of the model, so that this is not how users learn of mistakes. The cause
    // is left out because it may quote a secret.
    let mut config: Config =
        table.try_into().map_err(|_| invalid("the values cannot be used together".into()))?;
    for runner in &mut config.runners {
        let url = expand(&runner.url, lookup).map_err(&invalid)?;
        runner.url = address::instance(&url).map_err(&invalid)?.url;
        runner.token = crate::Secret::new(expand(runner.token.expose(), lookup).map_err(&invalid)?);
    }
    Ok(Loaded { config, warnings })
}

/// Reads a file up to the limit.
pub(crate) fn read(path: &Path) -> Result<String, LoadError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => LoadError::NotFound(path.to_owned()),
        _ => LoadError::Read { path: path.to_owned(), source },
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_SIZE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_SIZE {
        return Err(LoadError::TooLarge(path.to_owned()));
    }
    Ok(text)
}

/// Removes what the model does not hold: values without meaning here, and those that say "not set".
fn keep_meaningful(section: &Section, table: &mut Table) {
    let names: Vec<String> = table.keys().cloned().collect();
    for name in names {
        let path = join(section.path, &name);
        let Some(value) = table.get_mut(&name) else { continue };
        let drop = match (schema::section(&path), section.key(&name)) {
            (Some(child), _) => {
                match value {
                    Value::Table(table) => keep_meaningful(child, table),
                    Value::Array(items) => {
                        items
                            .iter_mut()
                            .filter_map(Value::as_table_mut)
                            .for_each(|item| keep_meaningful(child, item));
                    }
                    _ => {}
                }
                matches!(support::of(&path), Support::Ignored(_) | Support::Refused(_))
            }
            (None, Some(key)) => {
                key.kind == Kind::Foreign
                    || matches!(
                        support::of(&join(section.path, key.name)),
                        Support::Ignored(_) | Support::Refused(_)
                    )
                    || value.as_str() == Some("")
                    || (value.as_integer() == Some(0) && key.zero_is_default())
            }
            (None, None) => false,
        };
        if drop {
            table.remove(&name);
        }
    }
}

/// A warning if others may read the file's tokens.
fn exposed(path: &Path) -> Option<Problem> {
    use std::os::unix::fs::PermissionsExt;
    let mode = path.metadata().ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| Problem {
        path: path.into(),
        line: 1,
        column: 1,
        severity: Severity::Warning,
        text: format!("the file holds tokens and others may access it (mode {mode:04o}): run `chmod 600`"),
    })
}

/// Where the configuration is if neither `--config` nor `$CONFIG_FILE` names it: `/etc/tart/config.toml` for root, else
/// `.tart/config.toml` in the home directory.
pub fn default_path(is_root: bool, home: Option<&Path>) -> PathBuf {
    match home {
        Some(home) if !is_root => home.join(".tart/config.toml"),
        _ => PathBuf::from("/etc/tart/config.toml"),
    }
}

/// Where disks and sockets of running VMs are if the configuration does not say: `/var/lib/tart` for root, else
/// `.local/state/tart` in the home directory.
pub fn default_state_dir(is_root: bool, home: Option<&Path>) -> PathBuf {
    match home {
        Some(home) if !is_root => home.join(".local/state/tart"),
        _ => PathBuf::from("/var/lib/tart"),
    }
}
