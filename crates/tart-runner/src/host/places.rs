//! Where machines get their directories, users and cgroups.

use std::sync::Arc;

use tart_vmm::{Isolation, Limits, MachineDir, MachineSpec, RunDir, VmmError};

/// What makes places for the machines of a runner.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(super) run_dir: Arc<RunDir>,
    pub(super) isolation: Arc<Isolation>,
    /// [`tart_vmm::Driver::own_memory`].
    pub(super) own_memory: u64,
    /// Bytes in a second that a machine reads from disks and writes to them.
    pub(super) bandwidth: Option<u64>,
}

impl Places {
    /// Makes a place for a machine and puts it there.
    pub(crate) fn machine(&self, id: &str, spec: &mut MachineSpec) -> Result<MachineDir, VmmError> {
        let mut dir = self.run_dir.machine(id)?;
        let bandwidth = self.bandwidth.map(|bytes| (bytes, dir.path().to_owned()));
        let limits = Limits { bandwidth, ..Limits::of(spec.memory_bytes, self.own_memory, spec.vcpus) };
        dir.confine(&self.isolation, &limits)?;
        id.clone_into(&mut spec.id);
        spec.place_in(&dir);
        Ok(dir)
    }
}
