//! The walk over a parsed file: unknown keys, types, required keys, and what support says about each key.

use std::{ops::Range, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    problem::{Positions, Problem, Severity},
    rules,
    schema::{self, Default, Key, Kind, Section, join},
    suggest,
    support::{self, Support},
    value,
};

/// Where `$VAR` in `url` and `token` gets its value.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All findings in `text`, in the order of the file.
pub(crate) fn check(path: &Path, text: &str, lookup: Lookup<'_>) -> Vec<Problem> {
    let mut checker =
        Checker { path: path.into(), positions: Positions::new(text), lookup, found: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        if let Some(top) = schema::section("") {
            checker.table(top, table.get_ref(), 0..0);
        }
    } else {
        // A broken text is not checked further: what the parser made of it would mislead.
        for error in errors {
            checker.error(
                error.span().unwrap_or(0..0),
                format!("not valid TOML: {}", one_line(error.message())),
            );
        }
    }
    let mut found = checker.found;
    found.sort_by_key(|(offset, _)| *offset);
    let mut problems: Vec<Problem> = Vec::new();
    for (_, problem) in found {
        // What holds for every runner is said once.
        if problem.severity == Severity::Error || !problems.iter().any(|other| other.text == problem.text) {
            problems.push(problem);
        }
    }
    problems
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Collects findings with their byte offsets.
pub(crate) struct Checker<'a> {
    path: Arc<Path>,
    positions: Positions<'a>,
    pub(crate) lookup: Lookup<'a>,
    found: Vec<(usize, Problem)>,
}

impl Checker<'_> {
    pub(crate) fn error(&mut self, span: Range<usize>, text: impl Into<String>) {
        self.add(Severity::Error, span, text.into());
    }

    pub(crate) fn warning(&mut self, span: Range<usize>, text: impl Into<String>) {
        self.add(Severity::Warning, span, text.into());
    }

    pub(crate) fn notice(&mut self, span: Range<usize>, text: impl Into<String>) {
        self.add(Severity::Notice, span, text.into());
    }

    fn add(&mut self, severity: Severity, span: Range<usize>, text: String) {
        let (line, column) = self.positions.locate(span.start);
        self.found.push((span.start, Problem { path: self.path.clone(), line, column, severity, text }));
    }

    /// Checks one table; `at` is where it begins.
    fn table(&mut self, section: &'static Section, table: &DeTable<'_>, at: Range<usize>) {
        let mut seen: Vec<&str> = Vec::new();
        let mut without_effect: Vec<&str> = Vec::new();
        let mut group = None;
        for (name, value) in entries(table) {
            let path = join(section.path, name.get_ref());
            if let Some(child) = schema::section(&path) {
                self.child(child, name.span(), value);
            } else if let Some(key) = section.key(name.get_ref()) {
                if seen.contains(&key.name) {
                    let text = format!("`{path}` and its other name are both set: keep `{}`", key.name);
                    self.error(name.span(), text);
                    continue;
                }
                seen.push(key.name);
                if let Some(row) = self.key(section, key, name.span(), value) {
                    without_effect.push(key.name);
                    group = Some(row);
                }
            } else {
                self.error(name.span(), suggest::unknown_key(section, name.get_ref()));
            }
        }
        if let Some(support) = group {
            let text = without_effect_text(section, support, &without_effect);
            self.warning(at.clone(), text);
        }
        for key in section.keys.iter().filter(|key| key.default == Default::Required) {
            if !seen.contains(&key.name) {
                self.error(at.clone(), rules::missing(section, key));
            }
        }
        rules::check_section(self, section.path, table, at);
    }

    /// Checks a table or an array of tables that has a section of its own.
    fn child(&mut self, section: &'static Section, at: Range<usize>, value: &Spanned<DeValue<'_>>) {
        match (value.get_ref(), section.repeated) {
            (DeValue::Table(table), false) => self.table(section, table, at),
            (DeValue::Array(items), true) => {
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => self.table(section, table, item.span()),
                        _ => self.error(
                            item.span(),
                            format!("`{}` must be a table, written `{}`", section.path, section.heading()),
                        ),
                    }
                }
            }
            (found, _) => {
                let text = format!(
                    "`{}` must be written as `{}`, found {}",
                    section.path,
                    section.heading(),
                    value::describe(found)
                );
                self.error(at, text);
            }
        }
    }

    /// Checks one key. Returns the support of its section if that says that the key has no effect.
    fn key(
        &mut self,
        section: &'static Section,
        key: &'static Key,
        at: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Support> {
        let path = join(section.path, key.name);
        if let Err(expected) = value::check(key.kind, value.get_ref()) {
            self.error(value.span(), format!("`{path}` must be {expected}"));
            return None;
        }
        let set = key.kind == Kind::Foreign || !value::is_default(key, value.get_ref());
        let (support, row) = support::row(&path);
        let own = row == path;
        if set {
            match support {
                Support::Works => {}
                Support::Refused(instead) => {
                    self.error(at, format!("`{path}` is not supported: {instead}"));
                    return None;
                }
                Support::Ignored(reason) if own => {
                    self.warning(at, format!("`{path}` is ignored: {reason}"));
                }
                Support::NotYet if own => {
                    self.warning(at, format!("`{path}` is accepted but has no effect in this version"));
                }
                Support::Ignored(_) | Support::NotYet => {
                    rules::check_value(self, &path, value);
                    return Some(support);
                }
            }
        }
        rules::check_value(self, &path, value);
        None
    }
}

fn without_effect_text(section: &Section, support: Support, keys: &[&str]) -> String {
    let heading = section.heading();
    let keys = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    match support {
        Support::Ignored(reason) => format!("`{heading}` is ignored: {reason}"),
        _ => format!("`{heading}` is accepted but has no effect in this version (set here: {keys})"),
    }
}

/// The entries of a table in the order of the file.
pub(crate) fn entries<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
