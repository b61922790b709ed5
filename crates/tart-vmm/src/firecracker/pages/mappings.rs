//! What Firecracker says of its guest's memory: where in its address space which part of the memory file belongs
//! (microvm.md 1.5). Pure. The process may be its guest's by now, so nothing is taken for granted.

use serde::Deserialize;

/// Most mappings of a machine: memory has a hole below 4 GiB, and memory that is plugged in later parts of its own.
const MAX_MAPPINGS: usize = 64;

/// Ends of addresses of a process: with five levels of page tables.
const MAX_ADDRESS: u64 = 1 << 56;

/// A page that is not huge, in bytes.
pub(super) const SMALL: u64 = 4096;

/// A huge page, in bytes.
pub(super) const HUGE: u64 = 2 << 20;

/// A part of the message. Later versions may say more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Told {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    page_size: Option<u64>,
    /// What `page_size` was called at first; bytes nevertheless.
    page_size_kib: Option<u64>,
}

/// A part of the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    /// The address of its first byte in Firecracker.
    start: u64,
    size: u64,
    /// Where its first byte is in the memory file.
    offset: u64,
    page_size: u64,
    /// Pages that the guest gave back, a bit for each: they are zeros from now on. Empty until there is one.
    removed: Vec<u64>,
}

/// A guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mappings(Vec<Mapping>);

/// A page that is to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// Its address in Firecracker.
    pub(super) address: u64,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Where its contents are in the memory file; it is zeros without that.
    pub(super) offset: Option<u64>,
}

/// Whether a message is not complete yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// More may come.
    Incomplete,
    /// What is wrong with it.
    Wrong(String),
}

impl Mappings {
    /// Reads the message of a machine whose memory file has this size in bytes.
    pub(super) fn read(message: &[u8], memory_bytes: u64) -> Result<Self, Unusable> {
        let told: Vec<Told> = serde_json::from_slice(message).map_err(|error| {
            if error.is_eof() {
                Unusable::Incomplete
            } else {
                Unusable::Wrong(format!("its message is not what is expected: {error}"))
            }
        })?;
        Self::check(&told, memory_bytes).map_err(Unusable::Wrong)
    }

    fn check(told: &[Told], memory_bytes: u64) -> Result<Self, String> {
        if told.is_empty() || told.len() > MAX_MAPPINGS {
            return Err(format!("it tells of {} mappings, not of 1 to {MAX_MAPPINGS}", told.len()));
        }
        let mut mappings = Vec::new();
        for (number, told) in told.iter().enumerate() {
            let mapping =
                told.check(memory_bytes).map_err(|problem| format!("its mapping {number} {problem}"))?;
            mappings.push(mapping);
        }
        // Each is in the file, so its ends are numbers that add up.
        mappings.sort_by_key(|mapping| mapping.offset);
        let mut end = 0;
        for mapping in &mappings {
            if mapping.offset != end {
                let what = if mapping.offset < end { "twice" } else { "not at all" };
                return Err(format!(
                    "its mappings have byte {} of the memory {what}",
                    mapping.offset.min(end)
                ));
            }
            end += mapping.size;
        }
        if end != memory_bytes {
            return Err(format!("its mappings have {end} bytes, and the memory has {memory_bytes}"));
        }
        mappings.sort_by_key(|mapping| mapping.start);
        if mappings.windows(2).any(|pair| matches!(pair, [one, next] if one.end() > next.start)) {
            return Err("its mappings overlap".to_owned());
        }
        Ok(Self(mappings))
    }

    /// The page at an address, if it is the guest's memory.
    pub(super) fn page(&self, address: u64) -> Option<Page> {
        let mapping = self.0.iter().find(|mapping| (mapping.start..mapping.end()).contains(&address))?;
        let index = (address - mapping.start) / mapping.page_size;
        let within = index * mapping.page_size;
        let offset = (!mapping.is_removed(index)).then_some(mapping.offset + within);
        Some(Page { address: mapping.start + within, size: mapping.page_size, offset })
    }

    /// The guest has given back what is between two addresses. A page of which it keeps a part stays what it is.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        for mapping in &mut self.0 {
            let from = start.clamp(mapping.start, mapping.end()) - mapping.start;
            let to = end.clamp(mapping.start, mapping.end()) - mapping.start;
            for index in from.div_ceil(mapping.page_size)..to / mapping.page_size {
                mapping.set_removed(index);
            }
        }
    }
}

impl Told {
    fn check(&self, memory_bytes: u64) -> Result<Mapping, String> {
        let page_size = self.page_size.or(self.page_size_kib).unwrap_or_default();
        if page_size != SMALL && page_size != HUGE {
            return Err(format!("has pages of {page_size} bytes, which are neither {SMALL} nor {HUGE}"));
        }
        let (start, size, offset) = (self.base_host_virt_addr, self.size, self.offset);
        if size == 0 || [start, size, offset].into_iter().any(|number| !number.is_multiple_of(page_size)) {
            return Err(format!("is not made of whole pages of {page_size} bytes"));
        }
        if start == 0 || start.checked_add(size).is_none_or(|end| end > MAX_ADDRESS) {
            return Err("is at an address that no process has".to_owned());
        }
        if offset.checked_add(size).is_none_or(|end| end > memory_bytes) {
            return Err(format!("is not within the {memory_bytes} bytes of the memory"));
        }
        Ok(Mapping { start, size, offset, page_size, removed: Vec::new() })
    }
}

impl Mapping {
    fn end(&self) -> u64 {
        self.start + self.size
    }

    fn is_removed(&self, index: u64) -> bool {
        let (word, bit) = place(index);
        self.removed.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set_removed(&mut self, index: u64) {
        let (word, bit) = place(index);
        if self.removed.is_empty() {
            self.removed = vec![0; place(self.size / self.page_size).0 + 1];
        }
        if let Some(word) = self.removed.get_mut(word) {
            *word |= bit;
        }
    }
}

fn place(index: u64) -> (usize, u64) {
    (usize::try_from(index / 64).unwrap_or(usize::MAX), 1 << (index % 64))
}

#[cfg(test)]
mod tests;
