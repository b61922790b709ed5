//! The wall clock, which a guest has no other source for.

use rustix::time::{ClockId, Timespec};
use tart_proto::message::Failure;

use crate::failure;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Sets the wall clock, in nanoseconds since 1970.
pub(crate) fn set(unix_nanos: u64) -> Result<(), Failure> {
    rustix::time::clock_settime(ClockId::Realtime, timespec(unix_nanos))
        .map_err(|e| failure::system("cannot set the clock", e))
}

fn timespec(unix_nanos: u64) -> Timespec {
    Timespec {
        // Both fit: 2^64 ns are 585 years.
        tv_sec: (unix_nanos / NANOS_PER_SECOND).cast_signed(),
        tv_nsec: (unix_nanos % NANOS_PER_SECOND).cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_split_into_seconds_and_rest() {
        let time = timespec(1_700_000_000_123_456_789);
        assert_eq!((time.tv_sec, time.tv_nsec), (1_700_000_000, 123_456_789));
        assert_eq!(timespec(u64::MAX).tv_sec, 18_446_744_073);
    }
}
