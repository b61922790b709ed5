//! Numbers both sides of the protocol agree on.

use std::time::Duration;

/// How often the log is sent until the server says otherwise.
pub const UPDATE_INTERVAL: Duration = Duration::from_secs(3);

/// The longest interval a server may ask for; a longer one is taken as this.
pub const MAX_UPDATE_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// After this long without a word, a running job tells the server that it is alive.
pub const FORCE_SEND_INTERVAL: Duration = Duration::from_secs(30);

/// The longest chunk of a log, in bytes.
pub const MAX_TRACE_CHUNK_BYTES: usize = 1 << 20;

/// `output_limit` where the configuration has none, in KiB.
pub const OUTPUT_LIMIT_KIB: u64 = 4096;

/// How often the final update is tried, with pauses from [`FINAL_UPDATE_FIRST_PAUSE`], doubling.
pub const FINAL_UPDATE_TRIES: u32 = 10;

/// The first pause between two tries of the final update.
pub const FINAL_UPDATE_FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two tries of the final update.
pub const FINAL_UPDATE_LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The server gives a job that is not acknowledged to another runner after this long.
pub const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(2 * 60);

/// The job's timeout if the server names none.
pub const JOB_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
