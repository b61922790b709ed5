//! A queue of the guest's vsock device, in the guest's memory.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    rc::Rc,
};

use virtio_queue::{Queue, QueueT as _};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// The guest's memory.
pub(super) type Memory = GuestMemoryMmap<()>;

/// Most entries of a queue.
const MAX_ENTRIES: u16 = 1024;

/// Most bytes that are read of one entry: a header and 64 KiB.
const MAX_BYTES: u64 = 128 * 1024;

/// Where a queue is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    pub(super) entries: u16,
    /// The guest's addresses.
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    /// The next entry to take.
    pub(super) next: u16,
}

/// A queue.
#[derive(Debug)]
pub(super) struct Ring {
    queue: Queue,
    memory: Rc<Memory>,
    /// Tells the guest of entries that were used.
    call: Option<OwnedFd>,
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("the guest's queue: {error}"))
}

impl Ring {
    pub(super) fn new(layout: Layout, memory: Rc<Memory>, call: Option<OwnedFd>) -> io::Result<Self> {
        let mut queue = Queue::new(MAX_ENTRIES).map_err(failed)?;
        queue.try_set_size(layout.entries).map_err(failed)?;
        queue.try_set_desc_table_address(GuestAddress(layout.descriptors)).map_err(failed)?;
        queue.try_set_avail_ring_address(GuestAddress(layout.available)).map_err(failed)?;
        queue.try_set_used_ring_address(GuestAddress(layout.used)).map_err(failed)?;
        queue.set_next_avail(layout.next);
        let used = queue.used_idx(&*memory, std::sync::atomic::Ordering::Acquire).map_err(failed)?;
        queue.set_next_used(used.0);
        queue.set_ready(true);
        Ok(Self { queue, memory, call })
    }

    /// The next entry to take, for whoever goes on with the queue.
    pub(super) fn next(&self) -> u16 {
        self.queue.next_avail()
    }

    pub(super) fn set_call(&mut self, call: Option<OwnedFd>) {
        self.call = call;
    }

    /// What the guest wrote into its next entry.
    pub(super) fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        let memory = self.memory.clone();
        let Some(chain) = self.queue.pop_descriptor_chain(&*memory) else { return Ok(None) };
        let head = chain.head_index();
        let mut bytes = Vec::new();
        chain.reader(&memory).map_err(failed)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        self.used(head, 0)?;
        Ok(Some(bytes))
    }

    /// Writes into the next entry what is made for its room; whether there is one.
    pub(super) fn put(&mut self, make: impl FnOnce(usize) -> Vec<u8>) -> io::Result<bool> {
        let memory = self.memory.clone();
        let Some(chain) = self.queue.pop_descriptor_chain(&*memory) else { return Ok(false) };
        let head = chain.head_index();
        let mut writer = chain.writer(&memory).map_err(failed)?;
        let bytes = make(writer.available_bytes());
        writer.write_all(&bytes)?;
        self.used(head, u32::try_from(bytes.len()).map_err(failed)?)?;
        Ok(true)
    }

    fn used(&mut self, head: u16, len: u32) -> io::Result<()> {
        self.queue.add_used(&*self.memory, head, len).map_err(failed)?;
        if self.queue.needs_notification(&*self.memory).map_err(failed)?
            && let Some(call) = &self.call
        {
            rustix::io::write(call, &1_u64.to_ne_bytes())?;
        }
        Ok(())
    }
}
