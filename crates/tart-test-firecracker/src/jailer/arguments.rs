//! The command line.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// What it is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Version,
    Jail(Box<Jail>),
}

/// The version of the kernel's control groups that it uses unless it is told.
const DEFAULT_CGROUP_VERSION: u8 = 1;

/// Version since which programs of any name are jailed.
const ANY_NAME: u32 = 13;

/// Open files that a program may have unless it is told.
const DEFAULT_NO_FILE: u64 = 2048;

/// A jail to make.
#[derive(Debug)]
pub(crate) struct Jail {
    pub(crate) id: String,
    /// Without symbolic links.
    pub(crate) exec_file: PathBuf,
    pub(crate) exec_name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) root: PathBuf,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) cgroup_version: u8,
    /// Files and values.
    pub(crate) cgroups: Vec<(String, String)>,
    pub(crate) parent_cgroup: Option<PathBuf>,
    pub(crate) fsize: Option<u64>,
    pub(crate) no_file: u64,
    pub(crate) daemonize: bool,
    pub(crate) new_pid_ns: bool,
    /// Arguments of the program.
    pub(crate) extra: Vec<String>,
}

/// Arguments that may be given again.
const REPEATED: [&str; 2] = ["--cgroup", "--resource-limit"];

/// Arguments as they were given.
#[derive(Debug, Default)]
struct Raw {
    values: Vec<(String, String)>,
    flags: BTreeSet<String>,
    extra: Vec<String>,
}

impl Raw {
    fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut words, mut raw, mut seen) = (words, Self::default(), BTreeSet::new());
        while let Some(word) = words.next() {
            if word == "--" {
                raw.extra = words.collect();
                break;
            }
            if !REPEATED.contains(&word.as_str()) && !seen.insert(word.clone()) {
                return Err(format!("The argument '{word}' was provided more than once."));
            }
            match word.as_str() {
                "--daemonize" | "--new-pid-ns" | "--version" => drop(raw.flags.insert(word)),
                "--id" | "--exec-file" | "--uid" | "--gid" | "--chroot-base-dir" | "--netns" | "--cgroup"
                | "--cgroup-version" | "--parent-cgroup" | "--resource-limit" => {
                    let missing =
                        || format!("The argument '{word}' requires a value, but none was supplied.");
                    let value = words.next().ok_or_else(missing)?;
                    raw.values.push((word, value));
                }
                _ => {
                    return Err(format!(
                        "Found argument '{word}' which wasn't expected, or isn't valid in this context."
                    ));
                }
            }
        }
        Ok(raw)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    fn must(&self, name: &str) -> Result<&str, String> {
        self.one(name).ok_or_else(|| format!("Argument '{name}' required, but not found."))
    }
}

/// Reads it, and checks the paths, as strictly as the jailer does.
pub(crate) fn parse(words: impl Iterator<Item = String>, minor: u32) -> Result<Command, String> {
    let raw = Raw::read(words).map_err(|problem| format!("Failed to parse arguments: {problem}"))?;
    if raw.flags.contains("--version") {
        return Ok(Command::Version);
    }
    let must = |name: &str| raw.must(name).map_err(|problem| format!("Failed to parse arguments: {problem}"));
    let id = must("--id")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !(1..=64).contains(&id.len()) || !id.chars().all(legal) {
        return Err(format!("Invalid instance ID: {id}"));
    }
    let canonical =
        |path: &str| fs::canonicalize(path).map_err(|e| format!("Failed to canonicalize path {path}: {e}"));
    let exec_file = canonical(must("--exec-file")?)?;
    if !exec_file.is_file() {
        return Err(format!("{} is not a file", exec_file.display()));
    }
    let exec_name = exec_file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if minor < ANY_NAME && !exec_name.contains("firecracker") {
        return Err(format!(
            "Invalid filename. The filename of `--exec-file` option must contain \"firecracker\": {exec_name}"
        ));
    }
    let base = canonical(raw.one("--chroot-base-dir").unwrap_or("/srv/jailer"))?;
    if !base.is_dir() {
        return Err(format!("{} is not a directory", base.display()));
    }
    let number = |name: &str, what: &str| {
        let value = must(name)?;
        value.parse::<u32>().map_err(|_| format!("Invalid {what}: {value}"))
    };
    let (fsize, no_file) = limits(raw.all("--resource-limit"))?;
    Ok(Command::Jail(Box::new(Jail {
        id: id.to_owned(),
        root: base.join(&exec_name).join(id).join("root"),
        exec_file,
        exec_name,
        uid: number("--uid", "uid")?,
        gid: number("--gid", "gid")?,
        netns: raw.one("--netns").map(PathBuf::from),
        cgroup_version: cgroup_version(raw.one("--cgroup-version"))?,
        cgroups: raw.all("--cgroup").map(cgroup).collect::<Result<_, _>>()?,
        parent_cgroup: raw.one("--parent-cgroup").map(parent_cgroup).transpose()?,
        fsize,
        no_file,
        daemonize: raw.flags.contains("--daemonize"),
        new_pid_ns: raw.flags.contains("--new-pid-ns"),
        extra: raw.extra,
    })))
}

fn cgroup_version(text: Option<&str>) -> Result<u8, String> {
    match text {
        None => Ok(DEFAULT_CGROUP_VERSION),
        Some("1") => Ok(1),
        Some("2") => Ok(2),
        Some(other) => Err(format!("{other} is an invalid cgroup version specifier")),
    }
}

fn cgroup(text: &str) -> Result<(String, String), String> {
    let invalid = || format!("Invalid format for cgroups: {text}");
    let (file, value) = text.split_once('=').ok_or_else(invalid)?;
    if value.is_empty() || value.contains('=') {
        return Err(invalid());
    }
    if file.split('.').count() < 2 || file.contains('/') {
        return Err(format!("Cgroup invalid file: {file}"));
    }
    Ok((file.to_owned(), value.to_owned()))
}

fn parent_cgroup(text: &str) -> Result<PathBuf, String> {
    if Path::new(text).components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(text.into());
    }
    Err("Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'".to_owned())
}

/// The largest file and the most files.
fn limits<'t>(texts: impl Iterator<Item = &'t str>) -> Result<(Option<u64>, u64), String> {
    let (mut fsize, mut no_file) = (None, DEFAULT_NO_FILE);
    for text in texts {
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("Invalid format for resources limits: {text}"))?;
        let value = value.parse().map_err(|e| format!("Invalid limit value for resource: {value}: {e}"))?;
        match name {
            "fsize" => fsize = Some(value),
            "no-file" => no_file = value,
            _ => return Err(format!("Invalid resource argument: {name}")),
        }
    }
    Ok((fsize, no_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(more: &str) -> Result<Box<Jail>, String> {
        parsed_by(12, more)
    }

    fn parsed_by(minor: u32, more: &str) -> Result<Box<Jail>, String> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::write(at("firecracker-v1"), "").unwrap();
        std::os::unix::fs::symlink(at("firecracker-v1"), at("firecracker")).unwrap();
        fs::write(at("other"), "").unwrap();
        let line = more.replace("DIR", &dir.path().display().to_string());
        match parse(line.split_whitespace().map(str::to_owned), minor)? {
            Command::Jail(jail) => Ok(jail),
            Command::Version => Err("the version".to_owned()),
        }
    }

    const LINE: &str = "--id a-1 --exec-file DIR/firecracker --uid 7 --gid 8 --chroot-base-dir DIR";

    #[test]
    fn a_jail_is_named_after_the_program_itself() {
        let jail =
            parsed(&format!("{LINE} --resource-limit fsize=9 --resource-limit no-file=5 -- --api-sock x"))
                .unwrap();
        assert!(jail.root.ends_with("firecracker-v1/a-1/root"), "{}", jail.root.display());
        assert_eq!((jail.fsize, jail.no_file, jail.cgroup_version), (Some(9), 5, 1));
        assert_eq!(jail.extra, ["--api-sock", "x"]);
    }

    #[test]
    fn what_the_jailer_refuses_is_refused() {
        let refused = |line: &str| parsed(line).unwrap_err();
        for (more, text) in [
            ("--uid 9", "more than once"),
            ("--api-sock x", "wasn't expected"),
            ("--netns", "requires a value"),
            ("--cgroup-version 3", "invalid cgroup version"),
            ("--cgroup memory.max", "Invalid format for cgroups"),
            ("--cgroup memory.max=1=2", "Invalid format for cgroups"),
            ("--parent-cgroup /tart", "should not be absolute"),
            ("--parent-cgroup a/../b", "should not be absolute"),
            ("--resource-limit core=1", "Invalid resource argument"),
            ("--resource-limit fsize=x", "Invalid limit value"),
        ] {
            let problem = refused(&format!("{LINE} {more}"));
            assert!(problem.contains(text), "{more}: {problem}");
        }
        assert!(refused(&LINE.replace("a-1", "a_1")).contains("Invalid instance ID"));
        let other = LINE.replace("DIR/firecracker", "DIR/other");
        assert!(refused(&other).contains("must contain") && parsed_by(13, &other).is_ok());
        assert!(refused(&LINE.replace("base-dir DIR", "base-dir DIR/gone")).contains("canonicalize"));
        assert!(refused(&LINE.replace("--uid 7", "--uid root")).contains("Invalid uid"));
        assert!(refused(&LINE.replace("--gid 8", "")).contains("'--gid' required"));
    }
}
