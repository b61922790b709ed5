//! config.toml: the official runner's keys plus [runners.microvm], strictly checked.
