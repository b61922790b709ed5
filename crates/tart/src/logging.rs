//! Log records on the standard error.

mod format;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::globals::{Globals, LogFormat, LogLevel};
use format::Lines;

static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// The index of the format in use; see [`format_in_use`].
static FORMAT: AtomicU8 = AtomicU8::new(0);

/// Starts logging as the flags say; without them, doubtful things are logged in the official runner's form.
pub(crate) fn start(globals: &Globals) {
    let (filter, handle) = reload::Layer::new(targets(level(globals, LogLevel::Warning)));
    set_format(globals.log_format.unwrap_or(LogFormat::Runner));
    let lines = tracing_subscriber::fmt::layer().event_format(Lines).with_writer(std::io::stderr);
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _first = LEVEL.set(handle);
    }
}

/// Logs as a configuration says, as far as the flags do not say otherwise.
pub(crate) fn configure(globals: &Globals, config: &tart_config::Config) {
    let configured = match config.log_level {
        tart_config::LogLevel::Panic => LogLevel::Panic,
        tart_config::LogLevel::Fatal => LogLevel::Fatal,
        tart_config::LogLevel::Error => LogLevel::Error,
        tart_config::LogLevel::Warning => LogLevel::Warning,
        tart_config::LogLevel::Info => LogLevel::Info,
        tart_config::LogLevel::Debug => LogLevel::Debug,
    };
    if let Some(handle) = LEVEL.get() {
        let _gone_at_exit = handle.reload(targets(level(globals, configured)));
    }
    set_format(globals.log_format.unwrap_or(match config.log_format {
        tart_config::LogFormat::Runner => LogFormat::Runner,
        tart_config::LogFormat::Text => LogFormat::Text,
        tart_config::LogFormat::Json => LogFormat::Json,
    }));
}

fn level(globals: &Globals, default: LogLevel) -> LevelFilter {
    if globals.debug {
        return LevelFilter::DEBUG;
    }
    match globals.log_level.unwrap_or(default) {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Fatal | LogLevel::Panic => LevelFilter::ERROR,
    }
}

/// Tart's own records at a level; those of libraries only if they are doubtful.
fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_target("tart", level).with_default(level.min(LevelFilter::WARN))
}

fn set_format(format: LogFormat) {
    FORMAT.store(format as u8, Ordering::Relaxed);
}

fn format_in_use() -> LogFormat {
    let formats = [LogFormat::Runner, LogFormat::Text, LogFormat::Json];
    let stored = FORMAT.load(Ordering::Relaxed);
    formats.into_iter().find(|format| *format as u8 == stored).unwrap_or(LogFormat::Runner)
}
