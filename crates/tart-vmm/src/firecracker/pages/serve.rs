//! Serving the pages of a machine until its end.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{
    events::Event,
    handshake::{Awaited, await_readable},
    mappings::Mappings,
    userfault::{Memory, Served, Userfault},
};

/// Until a page is tried again that could not be served while the process changed its memory: the kernel says nothing when
/// it is through.
const AGAIN: Duration = Duration::from_millis(1);

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
                Ok(Served::Done) => {}
                Ok(Served::Later(done)) => drop(missing.insert(address, done)),
                Ok(Served::Gone) => return Ok(()),
                Err(error) => return Err(explain(page.size, &error)),
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

fn explain(page_size: u64, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::OutOfMemory if page_size == super::mappings::HUGE => {
            ": the host has no huge pages left, so raise `vm.nr_hugepages`"
        }
        _ => "",
    };
    format!("a page of {page_size} bytes cannot be given to it: {error}{hint}")
}
