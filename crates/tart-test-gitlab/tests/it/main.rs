//! The test server, driven by a plain HTTP client and by real git.

mod artifacts;
mod binary;
mod client;
mod faults;
mod git;
mod jobs;
mod runners;
mod tls;
mod trace;
