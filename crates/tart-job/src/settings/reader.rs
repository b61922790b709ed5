//! Reads typed values from variables, and keeps what it could not read.

use std::time::Duration;

use crate::literal::{parse_bool, parse_duration};

pub(super) struct Reader<'a, 'r> {
    value: &'r dyn Fn(&str) -> Option<&'a str>,
    warnings: &'r mut Vec<String>,
}

impl<'a, 'r> Reader<'a, 'r> {
    pub(super) fn new(value: &'r dyn Fn(&str) -> Option<&'a str>, warnings: &'r mut Vec<String>) -> Self {
        Self { value, warnings }
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// The value of a variable that is set and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        (self.value)(name).filter(|value| !value.is_empty())
    }

    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        expected: &str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some(text) = self.text(name) else { return default };
        parse(text).unwrap_or_else(|| {
            self.warn(format!("{name}: expected {expected}, got `{text}`; using the default"));
            default
        })
    }

    pub(super) fn boolean(&mut self, name: &str, default: bool) -> bool {
        self.parsed(name, "true or false", default, parse_bool)
    }

    pub(super) fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        match parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.warn(format!("{name}: {error}: `{text}`; using the default"));
                None
            }
        }
    }

    /// Words separated by white space; `none` stands for no words at all.
    pub(super) fn words(&self, name: &str, default: &[&str]) -> Vec<String> {
        match self.text(name) {
            None => default.iter().map(|word| (*word).to_owned()).collect(),
            Some("none") => Vec::new(),
            Some(text) => text.split_whitespace().map(str::to_owned).collect(),
        }
    }
}
