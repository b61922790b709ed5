//! What monitors count of their machines. The guest has a say in all of it.

/// What a machine's devices did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineCounters {
    /// All disks.
    pub disks: DeviceCounters,
    /// The network device.
    pub network: DeviceCounters,
    /// Streams to and from the agent.
    pub agent: DeviceCounters,
    /// System calls that the monitor's own filter stopped: the monitor was taken over, or has a bug.
    pub forbidden_calls: u64,
    /// Lines of the monitor's log and metrics that were lost.
    pub lost_reports: u64,
}

/// What a device did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Bytes that the guest got.
    pub read_bytes: u64,
    /// Bytes that the guest gave.
    pub written_bytes: u64,
    /// Requests and events that failed.
    pub failures: u64,
}

impl DeviceCounters {
    /// Adds what came since.
    pub(crate) fn add(&mut self, since: Self) {
        self.read_bytes = self.read_bytes.saturating_add(since.read_bytes);
        self.written_bytes = self.written_bytes.saturating_add(since.written_bytes);
        self.failures = self.failures.saturating_add(since.failures);
    }
}
