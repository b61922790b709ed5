//! Keys that hold for the whole process.

use super::{COUNT, Default, Kind, SECONDS, Section, flag, key, unset, with};

/// Words of `log_level`.
const LOG_LEVELS: &[&str] = &["panic", "fatal", "error", "warning", "warn", "info", "debug"];

pub(super) static SECTIONS: &[Section] = &[
    Section {
        path: "",
        repeated: false,
        meaning: "Keys before the first section hold for the whole process.",
        keys: &[
            with("concurrent", Kind::Int(1, 100_000), "1", "How many jobs run at once, over all runners"),
            with(
                "check_interval",
                SECONDS,
                "3",
                "Seconds between two requests for a job, shared by all runners; 0 means the default",
            ),
            with(
                "log_level",
                Kind::Choice(LOG_LEVELS),
                "\"info\"",
                "The least severe messages that are printed; `--log-level` wins",
            ),
            with(
                "log_format",
                Kind::Choice(&["runner", "text", "json"]),
                "\"runner\"",
                "The form of printed messages; `--log-format` wins",
            ),
            unset("user", Kind::Text, "The system user that jobs of the shell executor run as"),
            unset("sentry_dsn", Kind::Secret, "Where to report errors of the runner itself"),
            with(
                "connection_max_age",
                Kind::Duration,
                "\"15m\"",
                "How long a connection to GitLab is kept before it is made anew",
            ),
            unset(
                "listen_address",
                Kind::HostPort,
                "Where metrics and health are served; the port is 9252 if missing",
            ),
            with(
                "shutdown_timeout",
                SECONDS,
                "30",
                "Seconds that a forceful shutdown waits for jobs to be cleaned up; 0 means the default",
            ),
            unset("labels", Kind::TextMap, "Labels sent to GitLab with every request for a job, at most 32"),
        ],
    },
    Section {
        path: "session_server",
        repeated: false,
        meaning: "The server behind interactive web terminals.",
        keys: &[
            unset("listen_address", Kind::HostPort, "Where the terminal server listens"),
            key(
                "advertise_address",
                Kind::HostPort,
                Default::Words("`listen_address`"),
                "The address that GitLab is told",
            ),
            with(
                "session_timeout",
                SECONDS,
                "1800",
                "Seconds that an open terminal may hold a finished job; 0 means the default",
            ),
        ],
    },
    Section {
        path: "machine",
        repeated: false,
        meaning: "Settings of the docker-machine executors.",
        keys: &[unset("shutdown_drain", Kind::Foreign, "How idle machines are removed at shutdown")],
    },
    Section { path: "experimental", repeated: false, meaning: "Settings that may change.", keys: &[] },
    Section {
        path: "experimental.usage_logger",
        repeated: false,
        meaning: "One record for every job that ran.",
        keys: &[
            flag("enabled", "Whether records are written"),
            unset("writers", Kind::List, "Which writers get the records"),
            unset("log_dir", Kind::Path, "The directory of the records"),
            unset("max_backup_files", COUNT, "How many old files are kept"),
            unset("max_rotation_age", Kind::Duration, "After which time a new file is begun"),
            unset("labels", Kind::TextMap, "Labels added to every record"),
            unset("logrotate", Kind::Foreign, "Settings of the file writer"),
            unset("snowplow_billing", Kind::Foreign, "Settings of GitLab's billing service"),
        ],
    },
];
