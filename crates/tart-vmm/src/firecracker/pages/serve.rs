//! Serving the pages of a machine until its end.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{
    events::Event,
    handshake::{Awaited, await_readable},
    mappings::{HUGE, Mappings},
    userfault::{Memory, Served, Userfault},
};

/// Until a page is tried again that could not be served while the process changed its memory: the kernel says nothing when
/// it is through.
const AGAIN: Duration = Duration::from_millis(1);

/// How often in a row a page may be there when somebody waits for it: once for each thread that waited when it was served.
const MAX_EXISTS: u32 = 4096;

/// Serves until the process ends or nobody needs it. The error says what went wrong, which leaves the machine waiting for
/// a page for ever.
pub(super) fn serve(
    userfault: &Userfault,
    mappings: &mut Mappings,
    memory: &Memory,
    stop: &OwnedFd,
) -> Result<(), String> {
    // Addresses, with the bytes of the page that are there. There are no more than threads that wait.
    let mut missing = BTreeMap::new();
    // How often a page was there already since it was served last.
    let mut existed = BTreeMap::new();
    loop {
        let until = (!missing.is_empty()).then(|| Instant::now() + AGAIN);
        match await_readable(userfault.fd(), stop, until)? {
            Awaited::Stopped => return Ok(()),
            Awaited::TimedOut => {}
            Awaited::Ready => {
                let events =
                    userfault.events().map_err(|e| format!("its page faults cannot be read: {e}"))?;
                for event in events {
                    take(event, mappings, &mut missing)?;
                }
            }
        }
        // What is given back is known by now: nobody gets the old contents of it.
        for (address, done) in std::mem::take(&mut missing) {
            let Some(page) = mappings.page(address) else {
                return Err(format!("it waits for memory at {address:#x}, which it did not tell of"));
            };
            match userfault.serve(page, done, memory) {
                Ok(Served::Done) => drop(existed.remove(&address)),
                Ok(Served::Exists) => {
                    let times: &mut u32 = existed.entry(address).or_default();
                    *times += 1;
                    if *times > MAX_EXISTS {
                        return Err(exhausted(page.size));
                    }
                }
                Ok(Served::Later(done)) => drop(missing.insert(address, done)),
                Ok(Served::Gone) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Err(exhausted(page.size)),
                Err(error) => {
                    return Err(format!("a page of {} bytes cannot be given to it: {error}", page.size));
                }
            }
        }
    }
}

fn take(event: Event, mappings: &mut Mappings, missing: &mut BTreeMap<u64, u64>) -> Result<(), String> {
    match event {
        Event::Missing(address) => {
            let page = mappings
                .page(address)
                .ok_or_else(|| format!("it waits for memory at {address:#x}, which it did not tell of"))?;
            missing.entry(page.address).or_insert(0);
        }
        Event::Removed(start, end) => mappings.remove(start, end),
        Event::Forked(_) => return Err("it forked, which Firecracker does not".to_owned()),
        Event::Other(kind) => return Err(format!("an event {kind:#x} of its memory is not expected")),
    }
    Ok(())
}

fn exhausted(page_size: u64) -> String {
    if page_size == HUGE {
        "the host has no huge page left for it: raise `vm.nr_hugepages`".to_owned()
    } else {
        "neither the host nor its control group has memory left for it".to_owned()
    }
}
