//! Every section and key of config.toml: what it holds, its default and its meaning.
//!
//! The checker, the generated reference and `register`'s settings read these tables; whether a key has an effect is
//! in [`crate::support`].

mod cache;
mod docker;
mod global;
mod microvm;
mod runner;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// An integer between the two bounds, both included.
    Int(i64, i64),
    /// A number of at least 0.
    Factor,
    /// Any string.
    Text,
    /// A string that is never printed.
    Secret,
    /// A path of the file system.
    Path,
    /// An `http` or `https` address.
    Url,
    /// `host:port`, where either may be missing.
    HostPort,
    /// A Go duration such as `1h30m`.
    Duration,
    /// A size such as `512m`, or an integer number of bytes.
    Size,
    /// A TOML or RFC 3339 time.
    Time,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of strings.
    List,
    /// A list of `KEY=value` strings.
    Environment,
    /// One string or a list of strings.
    TextOrList,
    /// A table of strings.
    TextMap,
    /// A table of booleans.
    BoolMap,
    /// A table of lists of strings.
    ListMap,
    /// Something of another executor, whose content is not looked at.
    Foreign,
}

impl Kind {
    /// The name of the kind in the reference.
    pub fn name(self) -> String {
        match self {
            Self::Bool => "boolean".into(),
            Self::Int(..) => "integer".into(),
            Self::Factor => "number".into(),
            Self::Text => "string".into(),
            Self::Secret => "string (secret)".into(),
            Self::Path => "path".into(),
            Self::Url => "URL".into(),
            Self::HostPort => "host:port".into(),
            Self::Duration => "duration".into(),
            Self::Size => "size".into(),
            Self::Time => "time".into(),
            Self::Choice(words) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            Self::List => "list of strings".into(),
            Self::Environment => "list of `KEY=value`".into(),
            Self::TextOrList => "string or list of strings".into(),
            Self::TextMap => "table of strings".into(),
            Self::BoolMap => "table of booleans".into(),
            Self::ListMap => "table of lists".into(),
            Self::Foreign => "any".into(),
        }
    }
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// Nothing: the key's absence means "not set".
    Unset,
    /// This value, in TOML.
    Toml(&'static str),
    /// A value that depends on something; in words.
    Words(&'static str),
    /// The key must be given.
    Required,
}

/// One key of a section.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The name, as it is written.
    pub name: &'static str,
    /// Another accepted name.
    pub alias: Option<&'static str>,
    /// What the key holds.
    pub kind: Kind,
    /// What holds without the key.
    pub default: Default,
    /// The meaning, one sentence without its period.
    pub meaning: &'static str,
}

impl Key {
    /// Whether 0 means the default, as Go programs read it. `services_limit = 0` really means none.
    pub(crate) fn zero_is_default(&self) -> bool {
        matches!(self.kind, Kind::Int(low, _) if low <= 0) && self.name != "services_limit"
    }
}

/// A table of the file.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The dotted path; empty for the top of the file.
    pub path: &'static str,
    /// Whether it is an array of tables, `[[...]]`.
    pub repeated: bool,
    /// What the section is for, a sentence with its period.
    pub meaning: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [Key],
}

impl Section {
    /// How the section is written in the file: `[runners.docker]`, `[[runners]]`.
    pub fn heading(&self) -> String {
        match (self.path, self.repeated) {
            ("", _) => "the top of the file".into(),
            (path, true) => format!("[[{path}]]"),
            (path, false) => format!("[{path}]"),
        }
    }

    /// The key of that name or alias.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name || key.alias == Some(name))
    }
}

/// All sections, in the order of the reference.
pub fn sections() -> impl Iterator<Item = &'static Section> {
    [global::SECTIONS, runner::SECTIONS, microvm::SECTIONS, docker::SECTIONS, cache::SECTIONS]
        .into_iter()
        .flatten()
}

/// The section at a dotted path.
pub fn section(path: &str) -> Option<&'static Section> {
    sections().find(|section| section.path == path)
}

/// The path of `name` within `section`.
pub(crate) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

const fn key(name: &'static str, kind: Kind, default: Default, meaning: &'static str) -> Key {
    Key { name, alias: None, kind, default, meaning }
}

/// A key that is unset by default.
const fn unset(name: &'static str, kind: Kind, meaning: &'static str) -> Key {
    key(name, kind, Default::Unset, meaning)
}

/// A key with a default written in TOML.
const fn with(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    key(name, kind, Default::Toml(default), meaning)
}

/// A boolean that is false by default.
const fn flag(name: &'static str, meaning: &'static str) -> Key {
    key(name, Kind::Bool, Default::Toml("false"), meaning)
}

/// A count from zero up.
const COUNT: Kind = Kind::Int(0, 1_000_000_000);
/// A number of seconds, up to ten years.
const SECONDS: Kind = Kind::Int(0, 315_360_000);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_is_unique_and_every_section_has_its_parent() {
        let mut paths = BTreeSet::new();
        for section in sections() {
            assert!(paths.insert(section.path.to_owned()), "{}", section.path);
            if let Some((parent, _)) = section.path.rsplit_once('.') {
                assert!(sections().any(|section| section.path == parent), "{parent}");
            }
        }
        for section in sections() {
            for key in section.keys {
                assert!(paths.insert(join(section.path, key.name)), "{}.{}", section.path, key.name);
                assert!(!key.meaning.ends_with('.') && !key.meaning.contains('|'), "{}", key.meaning);
            }
        }
    }
}
