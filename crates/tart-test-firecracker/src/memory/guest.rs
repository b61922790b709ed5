//! Memory of a guest that does not run: it is touched by threads as virtual processors would.

use std::{io, ptr, thread};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::{PAGE, contents};

/// A huge page, in bytes.
pub(super) const HUGE: u64 = 2 << 20;

/// Huge pages that the guest gives back, as a balloon does: the first, which has contents.
const GIVEN_BACK: u64 = HUGE / PAGE;

/// Memory in two mappings, as there are two around the hole below 4 GiB.
#[derive(Debug)]
pub(super) struct Guest {
    mappings: [Mapping; 2],
    huge: bool,
}

impl Guest {
    /// Maps memory. Huge pages are announced, but may be none if they need not be: a host may have none left.
    pub(super) fn map(bytes: u64, huge: bool, only: bool) -> io::Result<Self> {
        let page = if huge { HUGE } else { PAGE };
        let first = (bytes / 2).next_multiple_of(page);
        let mapping = |len| Mapping::new(len, huge, only);
        Ok(Self { mappings: [mapping(first)?, mapping(bytes - first)?], huge })
    }

    pub(super) fn is_huge(&self) -> bool {
        self.huge
    }

    /// Addresses and sizes.
    pub(super) fn parts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.mappings.iter().map(|mapping| (mapping.start, mapping.len))
    }

    fn bytes(&self) -> u64 {
        self.mappings.iter().map(|mapping| mapping.len).sum()
    }

    /// The byte at a guest's address. It waits until the page is there.
    pub(super) fn byte(&self, at: u64) -> u8 {
        let [first, second] = &self.mappings;
        if at < first.len { first.byte(at) } else { second.byte(at - first.len) }
    }

    /// The page at a guest's address; nothing at the end.
    pub(super) fn page(&self, at: u64) -> Option<Vec<u8>> {
        (at < self.bytes()).then(|| (at..at + PAGE).map(|at| self.byte(at)).collect())
    }

    fn check_page(&self, number: u64) -> Result<(), String> {
        let wanted = contents(number, self.bytes() / PAGE).unwrap_or(0);
        for at in [0, 1, PAGE / 2, PAGE - 1] {
            let found = self.byte(number * PAGE + at);
            if found != wanted {
                return Err(format!("byte {at} of page {number} is {found}, and was {wanted}"));
            }
        }
        Ok(())
    }

    /// Whether pages from one on are what was saved: all that are full, and some others.
    fn check_from(&self, first: u64, backwards: bool) -> Result<(), String> {
        let pages = self.bytes() / PAGE;
        let interesting = |number: &u64| {
            number.is_multiple_of(64)
                || [number.saturating_sub(1), *number, number + 1]
                    .iter()
                    .any(|n| contents(*n, pages).is_some())
        };
        let mut numbers: Vec<u64> = (first..pages).filter(interesting).collect();
        if backwards {
            numbers.reverse();
        }
        numbers.into_iter().try_for_each(|number| self.check_page(number))
    }

    /// Two processors look at all of it, and meet.
    pub(super) fn check(&self) -> Result<(), String> {
        thread::scope(|scope| {
            let other = scope.spawn(|| self.check_from(0, true));
            self.check_from(0, false)?;
            other.join().map_err(|_| "a processor panicked".to_owned())?
        })
    }

    /// What it has not given back is as it was.
    pub(super) fn check_kept(&self) -> Result<(), String> {
        self.check_from(GIVEN_BACK, false)
    }

    /// A balloon gives memory back, again and again, while a processor looks at other pages.
    pub(super) fn give_back(&self) -> Result<(), String> {
        let [first, _] = &self.mappings;
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let pages = self.bytes() / PAGE;
                (GIVEN_BACK..pages)
                    .filter(|number| number % 64 == 7)
                    .try_for_each(|number| self.check_page(number))
            });
            for round in 0..16 {
                first.give_back(HUGE).map_err(|e| format!("cannot give memory back: {e}"))?;
                let numbers = [round % 3, 2, GIVEN_BACK - 1];
                if let Some(number) = numbers.into_iter().find(|number| self.byte(number * PAGE) != 0) {
                    return Err(format!("page {number} has contents after it was given back"));
                }
            }
            other.join().map_err(|_| "a processor panicked".to_owned())?
        })
    }
}

/// A part of the memory.
#[derive(Debug)]
struct Mapping {
    /// Its address, a multiple of a huge page's size.
    start: u64,
    len: u64,
    mapped: (u64, usize),
}

impl Mapping {
    fn new(len: u64, huge: bool, only: bool) -> io::Result<Self> {
        let map = |len: u64, flags| {
            let len = usize::try_from(len).map_err(io::Error::other)?;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            #[expect(unsafe_code, reason = "memory is what is tested")]
            // SAFETY: the kernel chooses the address, and no reference to what is there is made.
            let start = unsafe { mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE | flags) }?;
            io::Result::Ok((start.expose_provenance() as u64, len))
        };
        let kind = MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        if only {
            // As Firecracker, which looks for a page only when it is touched.
            let mapped = map(len, kind | MapFlags::NORESERVE)?;
            return Ok(Self { start: mapped.0, len, mapped });
        }
        if huge && let Ok(mapped) = map(len, kind) {
            return Ok(Self { start: mapped.0, len, mapped });
        }
        // Without huge pages, a server that copies whole ones fills as many others.
        let mapped = map(len + HUGE, MapFlags::NORESERVE)?;
        Ok(Self { start: mapped.0.next_multiple_of(HUGE), len, mapped })
    }

    fn byte(&self, at: u64) -> u8 {
        assert!(at < self.len, "an address of the guest");
        let address =
            ptr::with_exposed_provenance::<u8>(usize::try_from(self.start + at).unwrap_or_default());
        #[expect(unsafe_code, reason = "memory is what is tested")]
        // SAFETY: it is within the mapping, which any byte is good for, and only the kernel writes there.
        unsafe {
            address.read_volatile()
        }
    }

    fn give_back(&self, len: u64) -> io::Result<()> {
        let start = ptr::with_exposed_provenance_mut(usize::try_from(self.start).unwrap_or_default());
        let len = usize::try_from(len.min(self.len)).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "memory is what is tested")]
        // SAFETY: it is within the mapping, to which there is no reference.
        Ok(unsafe { madvise(start, len, Advice::LinuxDontNeed) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (start, len) = self.mapped;
        let start = ptr::with_exposed_provenance_mut(usize::try_from(start).unwrap_or_default());
        #[expect(unsafe_code, reason = "what was mapped has to be unmapped")]
        // SAFETY: it was mapped with this length, and nothing refers to it any more.
        let _unmapped = unsafe { munmap(start, len) };
    }
}
