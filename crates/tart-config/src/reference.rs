//! The reference of all keys, docs/configuration.md.

use std::fmt::Write;

use crate::{
    schema::{self, Default, Key, Section, join},
    support::{self, Support},
};

const INTRODUCTION: &str = "\
# Configuration

<!-- Rendered from crates/tart-config by its test `the_reference_is_up_to_date`; TART_UPDATE_DOCS=1 rewrites it. -->

Tart reads `/etc/tart/config.toml` if it runs as root and `~/.tart/config.toml` otherwise; `--config` and
`$CONFIG_FILE` name another file. The keys are those of GitLab Runner, so that an existing file can be taken over, and
`[runners.microvm]`. Unknown keys and wrong values are errors, reported together with their lines.

- A duration is written as in Go: `\"90s\"`, `\"15m\"`, `\"1h30m\"`.
- A size is a number of bytes or a string with a unit, in powers of 1024: `\"512m\"`, `\"1g\"`, `\"20GiB\"`.
- An empty string means the same as leaving the key out.

A minimal file:

```toml
concurrent = 2

[[runners]]
name = \"builder\"
url = \"https://gitlab.example.com\"
token = \"glrt-...\"
executor = \"microvm\"
```
";

/// Renders the reference as Markdown.
pub fn render() -> String {
    let mut out = INTRODUCTION.to_owned();
    for section in schema::sections() {
        if !section.keys.is_empty() {
            render_section(&mut out, section);
        }
    }
    out
}

fn render_section(out: &mut String, section: &Section) {
    let title =
        if section.path.is_empty() { "Global keys".to_owned() } else { format!("`{}`", section.heading()) };
    let mut put =
        |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("writing to a string does not fail");
    put(format_args!("\n## {title}\n\n{}\n\n", section.meaning));
    put(format_args!("| Key | Type | Default | Meaning | Support |\n| --- | --- | --- | --- | --- |\n"));
    for key in section.keys {
        let name = match key.alias {
            Some(alias) => format!("`{}` (or `{alias}`)", key.name),
            None => format!("`{}`", key.name),
        };
        put(format_args!(
            "| {name} | {} | {} | {} | {} |\n",
            key.kind.name(),
            default(key),
            key.meaning,
            support(support::of(&join(section.path, key.name)))
        ));
    }
}

fn default(key: &Key) -> String {
    match key.default {
        Default::Unset => "–".into(),
        Default::Toml(text) => format!("`{text}`"),
        Default::Words(text) => text.into(),
        Default::Required => "required".into(),
    }
}

fn support(support: Support) -> String {
    match support {
        Support::Works => "yes".into(),
        Support::NotYet => "accepted, no effect yet".into(),
        Support::Ignored(reason) => format!("ignored: {reason}"),
        Support::Refused(instead) => format!("refused: {instead}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_reference_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        let rendered = super::render();
        if std::env::var_os("TART_UPDATE_DOCS").is_some() {
            fs::write(&path, &rendered).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(written == rendered, "docs/configuration.md is stale: run this test with TART_UPDATE_DOCS=1");
    }
}
