//! What a runner asks its helper for, about one jailed Firecracker.
//!
//! A connection begins with an [`Opening`]. That of a machine is the machine's life: the helper says [`Begun`], later
//! `Ended`, and kills the machine when the connection closes. With `Begun` comes another connection, on which each
//! [`Request`] is answered in its turn, until the runner closes that; then the jail is removed. So no answer can be taken
//! for the machine's end.
//!
//! [`Begun`]: crate::monitor::Begun

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::{ends::Listeners, jail::Furnishing, place::Socket};

/// What a connection is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Opening {
    /// To learn with what the helper starts machines: [`Described`].
    Describe,
    /// A machine. Its descriptors are the console, the standard error, the network namespace if there is one, and the files
    /// in the order of [`Wanted::files`].
    Start(Wanted),
}

/// With what the helper starts machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Described {
    /// The programs, without symbolic links.
    pub(super) firecracker: PathBuf,
    pub(super) jailer: PathBuf,
    /// Firecracker's version.
    pub(super) version: String,
    /// Why no guest can run, if there is a reason.
    pub(super) problem: Option<String>,
}

/// A machine to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The machine's name.
    pub(super) machine: String,
    /// The version of Firecracker that the runner's requests are made for.
    pub(super) version: String,
    /// What its jail is given; the contents are behind descriptors.
    pub(super) files: Vec<Furnishing<()>>,
    pub(super) listeners: Listeners,
    /// It has a network namespace of the helper's.
    pub(super) has_namespace: bool,
    /// Bytes of memory, the guest's and its monitor's own.
    pub(super) memory: u64,
    /// Processors of the guest.
    pub(super) vcpus: u32,
    /// Bytes in a second that are read from disks, and that are written.
    pub(super) bandwidth: Option<u64>,
    /// Largest file that it may write, in bytes.
    pub(super) max_file: u64,
}

/// A request about a machine that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// A connection to one of its sockets.
    Connect(Socket),
    /// Gives a disk that has none an image, whose descriptor comes with this.
    Put(Furnishing<()>),
    /// The files that it has saved.
    Take,
}

/// What a request gave.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Given {
    /// It is done; what was asked for comes with this.
    Done,
    /// Nobody listens at that socket, or not yet.
    Absent(String),
    /// The machine is not where it was put, and was killed.
    Astray(String),
}
