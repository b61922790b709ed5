//! The three forms of a log record.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::format_in_use;
use crate::globals::LogFormat;

/// Writes each record as one line, in the format in use.
#[derive(Debug)]
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = render(format_in_use(), *event.metadata().level(), Timestamp::now(), fields);
        writeln!(writer, "{line}")
    }
}

/// What a record says.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.others.push((field.name(), value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, value.into());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

fn render(format: LogFormat, level: Level, now: Timestamp, fields: Fields) -> String {
    let word = match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    };
    let time = format!("{now:.0}");
    match format {
        LogFormat::Runner => {
            let prefix = match level {
                Level::ERROR => "ERROR: ",
                Level::WARN => "WARNING: ",
                _ => "",
            };
            let mut line = one_line(&format!("{prefix}{}", fields.message));
            if !fields.others.is_empty() {
                line = format!("{line:<50}");
            }
            append(&mut line, &fields.others);
            line
        }
        LogFormat::Text => {
            let mut line = format!("time={} level={word} msg={}", quoted(&time), quoted(&fields.message));
            append(&mut line, &fields.others);
            line
        }
        LogFormat::Json => {
            let mut map: Map<String, Value> =
                fields.others.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            for (name, value) in [("level", word), ("msg", fields.message.as_str()), ("time", time.as_str())]
            {
                map.insert(name.to_owned(), value.into());
            }
            Value::Object(map).to_string()
        }
    }
}

fn append(line: &mut String, fields: &[(&'static str, Value)]) {
    for (name, value) in fields {
        let value = value.as_str().map_or_else(|| value.to_string(), quoted);
        let _infallible = write!(line, " {name}={value}");
    }
}

/// As it is if it is one word, else in quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}

/// A record is one line, whatever somebody else's text says.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat) -> String {
        let now = "2026-01-02T03:04:05.6Z".parse().expect("a time");
        let others = vec![("job", 7.into()), ("reason", "two words".into())];
        render(format, Level::WARN, now, Fields { message: "it\nfailed".to_owned(), others })
    }

    #[test]
    fn records_look_as_those_of_the_official_runner() {
        insta::assert_snapshot!(line(LogFormat::Runner), @r#"WARNING: it failed                                 job=7 reason="two words""#);
        insta::assert_snapshot!(line(LogFormat::Text), @r#"time="2026-01-02T03:04:05Z" level=warning msg="it\nfailed" job=7 reason="two words""#);
        insta::assert_snapshot!(line(LogFormat::Json), @r#"{"job":7,"level":"warning","msg":"it\nfailed","reason":"two words","time":"2026-01-02T03:04:05Z"}"#);
    }
}
