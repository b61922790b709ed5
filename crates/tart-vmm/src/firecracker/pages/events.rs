//! What the kernel says of memory that a process waits for: `struct uffd_msg` of `linux/userfaultfd.h`. Pure.

/// Bytes of an event.
pub(super) const EVENT_BYTES: usize = 32;

const PAGE_FAULT: u8 = 0x12;
const FORK: u8 = 0x13;
const REMOVE: u8 = 0x15;

/// Flags of a fault that is no missing page: of write protection, of a page that is in its file already.
const NOT_MISSING: u64 = 1 << 1 | 1 << 2;

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A page at this address is missing, and somebody waits for it.
    Missing(u64),
    /// What is between these addresses is given back.
    Removed(u64, u64),
    /// The process has forked. The kernel has made a descriptor of this number in this process.
    Forked(u32),
    /// Something that Firecracker does not ask for.
    Other(u8),
}

impl Event {
    pub(super) fn read(bytes: &[u8; EVENT_BYTES]) -> Self {
        let [event, _, _, _, _, _, _, _, arguments @ ..] = bytes;
        let word = |number: usize| {
            let bytes = arguments.get(number * 8..number * 8 + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        match *event {
            PAGE_FAULT if word(0) & NOT_MISSING == 0 => Self::Missing(word(1)),
            FORK => {
                let [a, b, c, d, ..] = *arguments;
                Self::Forked(u32::from_ne_bytes([a, b, c, d]))
            }
            REMOVE => Self::Removed(word(0), word(1)),
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(kind: u8, words: [u64; 3]) -> Event {
        let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(words.into_iter().flat_map(u64::to_ne_bytes));
        Event::read(&bytes.try_into().unwrap())
    }

    #[test]
    fn each_event_is_told_apart() {
        assert_eq!(event(0x12, [1, 0x7000, 9]), Event::Missing(0x7000));
        assert_eq!(event(0x12, [3, 0x7000, 9]), Event::Other(0x12));
        assert_eq!(event(0x12, [4, 0x7000, 9]), Event::Other(0x12));
        assert_eq!(event(0x13, [u64::from_ne_bytes([7, 0, 0, 0, 1, 1, 1, 1]), 0, 0]), Event::Forked(7));
        assert_eq!(event(0x15, [1, 2, 0]), Event::Removed(1, 2));
        assert_eq!(event(0x16, [1, 2, 0]), Event::Other(0x16));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in any::<[u8; EVENT_BYTES]>()) {
            let _any = Event::read(&bytes);
        }
    }
}
