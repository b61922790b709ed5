//! What QEMU takes for the kernel's vhost driver: requests of its vsock device come over a socket, see `shim.rs`, and the
//! device's queues are worked on here, in the memory that QEMU and this process share.
//!
//! Other than a device of vhost-user, one of vhost can be saved and loaded.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    rc::Rc,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::{AbortHandle, spawn_local},
};
use vm_memory::{FileOffset, GuestAddress};

use super::{
    mux::Mux,
    ring::{Layout, Memory, Ring},
};

/// Longest message.
const MAX: usize = 4096;

/// Features of the driver: the queues of virtio 1, in which entries may be tables of others, and a log of changed memory,
/// without which QEMU saves no machine. The guest does not run while it is saved, so there is nothing to log.
const FEATURES: u64 = 1 << 32 | 1 << 28 | 1 << 26;

/// What it does not know: `EINVAL`.
const UNKNOWN: i32 = -22;

/// The queues that the driver has: what the guest receives, and what it sends.
const RECEIVE: usize = 0;
const SEND: usize = 1;

/// A part of the guest's memory.
#[derive(Debug, Clone, Copy)]
struct Region {
    guest: u64,
    len: u64,
    /// QEMU's own address.
    monitor: u64,
}

/// A queue that is being set up.
#[derive(Debug, Default)]
struct Setup {
    layout: Layout,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
}

/// The driver.
#[derive(Debug)]
pub(super) struct Vhost {
    socket: AsyncFd<OwnedFd>,
    memory: File,
    regions: Vec<Region>,
    queues: [Setup; 2],
    mux: Rc<Mux>,
    /// Wait for the guest's announcements while it runs.
    kicks: Vec<AbortHandle>,
}

/// Reads numbers one after the other.
struct Numbers<'b>(&'b [u8]);

impl Numbers<'_> {
    fn small(&mut self) -> io::Result<u32> {
        let (number, rest) = self.0.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*number))
    }

    fn large(&mut self) -> io::Result<u64> {
        Ok(u64::from(self.small()?) | u64::from(self.small()?) << 32)
    }
}

impl Vhost {
    /// Serves QEMU at the other end of a socket whose machine has its memory in a file.
    pub(super) fn new(socket: OwnedFd, memory: File, mux: Rc<Mux>) -> io::Result<Self> {
        let socket = watch(socket)?;
        Ok(Self { socket, memory, regions: Vec::new(), queues: Default::default(), mux, kicks: Vec::new() })
    }

    /// Answers until QEMU is gone.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        loop {
            let (message, file) = self.socket.async_io(Interest::READABLE, receive).await?;
            if message.is_empty() {
                return Ok(());
            }
            let mut numbers = Numbers(&message);
            let request = numbers.large()?;
            let mut argument = numbers.0.to_owned();
            let result = self.answer(request, &mut argument, file)?;
            let answer = [&result.to_le_bytes()[..], &argument].concat();
            send(self.socket.get_ref(), &answer, SendFlags::NOSIGNAL)?;
        }
    }

    fn answer(&mut self, request: u64, argument: &mut Vec<u8>, file: Option<OwnedFd>) -> io::Result<i32> {
        let mut numbers = Numbers(argument);
        let (number, direction) = (request & 0xff, request >> 30 & 3);
        match (number, direction) {
            // Features.
            (0x00, 2) => *argument = FEATURES.to_le_bytes().into(),
            (0x00, 1) => {}
            // The owner; where changes are logged; the guest's address, which is that of the API.
            (0x01 | 0x02, 0) | (0x04 | 0x07 | 0x60, 1) => {}
            (0x03, 1) => self.regions = regions(numbers)?,
            (0x10..=0x12, 1) => {
                let Some(queue) = self.queues.get_mut(index(&mut numbers)?) else { return Ok(UNKNOWN) };
                match number {
                    0x10 => queue.layout.entries = u16::try_from(numbers.small()?).unwrap_or(u16::MAX),
                    0x12 => queue.layout.next = u16::try_from(numbers.small()?).unwrap_or_default(),
                    _ => {
                        let _flags = numbers.small()?;
                        let [descriptors, used, available] =
                            [numbers.large()?, numbers.large()?, numbers.large()?];
                        let address = |monitor| guest_address(&self.regions, monitor);
                        queue.layout.descriptors = address(descriptors)?;
                        queue.layout.used = address(used)?;
                        queue.layout.available = address(available)?;
                    }
                }
            }
            (0x12, 3) => {
                let index = index(&mut numbers)?;
                let Some(queue) = self.queues.get(index) else { return Ok(UNKNOWN) };
                let next = u32::from(queue.layout.next).to_le_bytes();
                *argument = [&u32::try_from(index).unwrap_or_default().to_le_bytes()[..], &next].concat();
            }
            (0x20..=0x22, 1) => {
                let index = index(&mut numbers)?;
                let Some(queue) = self.queues.get_mut(index) else { return Ok(UNKNOWN) };
                match number {
                    0x20 => queue.kick = file,
                    0x21 => {
                        self.mux
                            .set_call(index == RECEIVE, file.as_ref().map(OwnedFd::try_clone).transpose()?);
                        queue.call = file;
                    }
                    _ => {}
                }
            }
            (0x61, 1) if numbers.small()? != 0 => self.start()?,
            (0x61, 1) => self.stop(),
            _ => return Ok(UNKNOWN),
        }
        Ok(0)
    }

    fn start(&mut self) -> io::Result<()> {
        let lowest =
            self.regions.iter().find(|region| region.guest == 0).ok_or(io::ErrorKind::InvalidData)?;
        let len = self.memory.metadata()?.len();
        let mut parts = Vec::new();
        for region in &self.regions {
            // Firmware is in other memory.
            let offset = region.monitor.checked_sub(lowest.monitor);
            if let Some(offset) = offset.filter(|offset| offset.saturating_add(region.len) <= len) {
                let file = FileOffset::new(self.memory.try_clone()?, offset);
                let size = usize::try_from(region.len).map_err(io::Error::other)?;
                parts.push((GuestAddress(region.guest), size, Some(file)));
            }
        }
        let memory = Rc::new(Memory::from_ranges_with_files(parts).map_err(io::Error::other)?);
        let mut rings = Vec::new();
        for queue in &self.queues {
            let call = queue.call.as_ref().map(OwnedFd::try_clone).transpose()?;
            rings.push(Ring::new(queue.layout, memory.clone(), call)?);
            if let Some(kick) = &queue.kick {
                let (kick, mux) = (watch(kick.try_clone()?)?, self.mux.clone());
                self.kicks.push(spawn_local(listen(kick, mux)).abort_handle());
            }
        }
        let send = rings.pop().zip(rings.pop()).map(|(send, receive)| (receive, send));
        self.mux.set_rings(send);
        Ok(())
    }

    fn stop(&mut self) {
        self.kicks.drain(..).for_each(|kick| kick.abort());
        if let Some((receive, send)) = self.mux.set_rings(None) {
            for (queue, ring) in [(RECEIVE, receive), (SEND, send)] {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.layout.next = ring.next();
                }
            }
        }
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        self.stop();
    }
}

fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio has no safe way to register a descriptor")]
    // SAFETY: an `OwnedFd` is one and the same open descriptor until it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// Works on the queues whenever the guest announces something.
async fn listen(kick: AsyncFd<OwnedFd>, mux: Rc<Mux>) {
    loop {
        let mut count = [0; 8];
        let read = kick.async_io(Interest::READABLE, |kick| Ok(rustix::io::read(kick, &mut count)?)).await;
        if read.is_err() {
            return;
        }
        mux.work();
    }
}

fn index(numbers: &mut Numbers<'_>) -> io::Result<usize> {
    usize::try_from(numbers.small()?).map_err(io::Error::other)
}

fn regions(mut numbers: Numbers<'_>) -> io::Result<Vec<Region>> {
    let (count, _padding) = (numbers.small()?, numbers.small()?);
    let mut region = || {
        let region = Region { guest: numbers.large()?, len: numbers.large()?, monitor: numbers.large()? };
        numbers.large()?;
        Ok(region)
    };
    (0..count).map(|_| region()).collect()
}

fn guest_address(regions: &[Region], monitor: u64) -> io::Result<u64> {
    let within = |region: &&Region| (region.monitor..region.monitor + region.len).contains(&monitor);
    let region = regions.iter().find(within);
    region.map(|region| region.guest + (monitor - region.monitor)).ok_or(io::ErrorKind::InvalidData.into())
}

/// The next message, empty at the end, with the descriptor beside it.
fn receive(socket: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut message = vec![0; MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut message)], &mut beside, flags)?;
    message.truncate(received.bytes);
    let files = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok((message, files.flatten().next()))
}
