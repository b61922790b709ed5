//! The daemon against a strict server, with jobs that need no machine.

mod jobs;
mod limits;
mod reloads;
mod scene;
