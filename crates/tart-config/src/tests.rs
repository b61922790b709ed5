//! Whole files: their texts, their model, and their changes.

mod agreement;
mod editing;
mod texts;

use std::path::Path;

use crate::{LoadError, Loaded, parse};

/// Parses with two variables in the environment.
fn load(text: &str) -> Result<Loaded, LoadError> {
    parse(Path::new("config.toml"), text, &|name| match name {
        "HOST" => Some("gitlab.example.com".into()),
        "TOKEN" => Some("glrt-fromenv".into()),
        _ => None,
    })
}

/// The errors of a file.
fn errors(text: &str) -> String {
    load(text).expect_err("the file should have errors").to_string()
}

/// The warnings of a usable file.
fn warnings(text: &str) -> String {
    match load(text) {
        Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        Err(error) => panic!("{error}"),
    }
}

/// A file whose runner has these lines too.
fn runner(lines: &str) -> String {
    format!("[[runners]]\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-secretsecret\"\n{lines}")
}
