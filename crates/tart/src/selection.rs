//! Which runners of a configuration a command is about.

use anyhow::bail;
use tart_config::{Config, Runner};

use crate::failure::Annotate as _;

/// How runners are named on a command line. What is `None` does not matter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Selection<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) url: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
}

impl Selection<'_> {
    /// Whether nothing is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.name.is_none() && self.url.is_none() && self.token.is_none()
    }

    fn matches(&self, runner: &Runner) -> bool {
        let url = self.url.map(|url| url.trim_end_matches('/'));
        self.name.is_none_or(|name| runner.name == name)
            && url.is_none_or(|url| runner.url == url)
            && self.token.is_none_or(|token| runner.token.expose() == token)
    }

    /// The numbers of all runners that match.
    pub(crate) fn all(&self, config: &Config) -> anyhow::Result<Vec<usize>> {
        let numbered = config.runners.iter().enumerate();
        let found: Vec<usize> =
            numbered.filter(|(_, runner)| self.matches(runner)).map(|(number, _)| number).collect();
        if found.is_empty() {
            let names: Vec<String> =
                config.runners.iter().map(|runner| format!("`{}`", runner.display_name())).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            bail!("no runner of the configuration matches; there are: {known}");
        }
        Ok(found)
    }

    /// The number of the only runner that matches.
    pub(crate) fn one(&self, config: &Config) -> anyhow::Result<usize> {
        match self.all(config)?.as_slice() {
            [number] => Ok(*number),
            several => {
                let error: anyhow::Result<usize> =
                    Err(anyhow::anyhow!("{} runners of the configuration match", several.len()));
                error.hint("tell them apart by --url and --token")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tart_config::Secret;

    use super::*;

    fn config() -> Config {
        let runner = |name: &str, token: &str| Runner {
            name: name.to_owned(),
            url: "https://gitlab.example.com".to_owned(),
            token: Secret::new(token),
            ..Runner::default()
        };
        Config {
            runners: vec![runner("a", "glrt-1"), runner("b", "glrt-2"), runner("b", "glrt-3")],
            ..Config::default()
        }
    }

    #[test]
    fn what_is_named_must_all_fit() {
        let by_name = Selection { name: Some("b"), ..Selection::default() };
        assert_eq!(by_name.all(&config()).expect("two"), [1, 2]);
        let url = Some("https://gitlab.example.com/");
        let exact = Selection { url, token: Some("glrt-3"), ..Selection::default() };
        assert_eq!(exact.one(&config()).expect("one"), 2);
    }

    #[test]
    fn none_and_several_are_told_apart() {
        let error = |name| {
            let error = Selection { name: Some(name), ..Selection::default() }.one(&config());
            error.expect_err("not exactly one").to_string()
        };
        insta::assert_snapshot!(error("b"), @"2 runners of the configuration match");
        insta::assert_snapshot!(error("x"), @"no runner of the configuration matches; there are: `a`, `b`, `b`");
    }
}
