//! Rules of `[[runners]]`.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::absolute;
use crate::{
    address::{self, expand},
    check::Checker,
    suggest,
};

/// Executors of the official runner other than `docker`.
const OTHER_EXECUTORS: &[&str] = &[
    "shell",
    "ssh",
    "parallels",
    "virtualbox",
    "kubernetes",
    "custom",
    "instance",
    "docker+machine",
    "docker-ssh",
    "docker-ssh+machine",
    "docker-windows",
    "docker-autoscaler",
];

pub(super) fn check(checker: &mut Checker<'_>, path: &str, spanned: &Spanned<DeValue<'_>>) {
    let span = spanned.span();
    let text = spanned.get_ref().as_str().unwrap_or_default();
    match path {
        "runners.url" => url(checker, text, span),
        "runners.token" => match expand(text, checker.lookup) {
            Err(error) => checker.error(span, format!("`{path}`: {error}")),
            Ok(token) if token.trim().is_empty() => {
                checker.error(span, "`runners.token` is empty: give the runner's token to `tart register`");
            }
            Ok(token) if token.contains(|c: char| c.is_whitespace() || c.is_control()) => {
                checker.error(span, "`runners.token` contains blanks or control characters: copy it anew");
            }
            Ok(_) => {}
        },
        "runners.clone_url" if !text.is_empty() => {
            if let Err(error) = address::instance(text) {
                checker.error(span, format!("`{path}` {error}"));
            }
        }
        "runners.executor" => executor(checker, text, span),
        "runners.shell" => match text {
            "" | "bash" | "sh" => {}
            "pwsh" | "powershell" | "cmd" => {
                let text = format!(
                    "`{path}` = {text:?} is not supported: jobs run on Linux, use \"bash\" or \"sh\""
                );
                checker.error(span, text);
            }
            _ => checker.error(span, format!("`{path}` must be \"bash\" or \"sh\", found {text:?}")),
        },
        "runners.builds_dir" | "runners.cache_dir" if !text.is_empty() => {
            absolute(checker, path, text, span, "inside the VM");
        }
        _ => {}
    }
}

/// Rules on keys together.
pub(super) fn check_together(checker: &mut Checker<'_>, table: &DeTable<'_>, at: Range<usize>) {
    let set = |name: &str| {
        table.get(name).and_then(|value| value.get_ref().as_str()).is_some_and(|text| !text.is_empty())
    };
    for (present, absent) in [("tls-cert-file", "tls-key-file"), ("tls-key-file", "tls-cert-file")] {
        if set(present) && !set(absent) {
            checker.error(
                at.clone(),
                format!("`runners.{present}` is set but `{absent}` is not: both are needed"),
            );
        }
    }
}

fn url(checker: &mut Checker<'_>, text: &str, span: Range<usize>) {
    match expand(text, checker.lookup) {
        Err(error) => checker.error(span, format!("`runners.url`: {error}")),
        Ok(url) => match address::instance(&url) {
            Err(error) => checker.error(span, format!("`runners.url` {error}")),
            Ok(instance) if instance.ci_stripped => {
                let text = "the `/ci` at the end of `runners.url` is left out: GitLab has had no such path since 8.0";
                checker.warning(span, text);
            }
            Ok(_) => {}
        },
    }
}

fn executor(checker: &mut Checker<'_>, text: &str, span: Range<usize>) {
    match text {
        "" | "microvm" => {}
        "docker" => {
            let text =
                "`runners.executor` = \"docker\" means \"microvm\" here: every job runs in its own microVM";
            checker.notice(span, text);
        }
        _ if OTHER_EXECUTORS.contains(&text) => {
            let text = format!(
                "the executor {text:?} is not supported: Tart runs every job in its own microVM, write \"microvm\""
            );
            checker.error(span, text);
        }
        _ => {
            let meant = suggest::nearest(text, ["microvm", "docker"].into_iter());
            let hint = match meant {
                Some(word) => format!("did you mean \"{word}\"?"),
                None => "write \"microvm\"".into(),
            };
            checker.error(span, format!("there is no executor {text:?}: {hint}"));
        }
    }
}
