//! The initial file system, where the firmware's tables of devices survive it.
//!
//! QEMU puts it at the very end of a microvm's memory, where the firmware has put its ACPI tables before. What is left of
//! them is what lies behind it in its last page, so there has to be little of it in that.

use std::{fs::File, io};

/// Name of the copy in the working directory while the machine is made.
pub(super) const NAME: &str = "./standin.initrd";

const PAGE: u64 = 4096;

/// Bytes in the last page. The tables take about a kilobyte.
const LAST: u64 = 16;

/// Makes the copy. The kernel passes over zeros at its end.
pub(super) fn copy(path: &str) -> io::Result<()> {
    let mut copy = File::create(NAME)?;
    let len = io::copy(&mut File::open(path)?, &mut copy)?;
    copy.set_len(padded(len))
}

const fn padded(len: u64) -> u64 {
    len + (PAGE + LAST - len % PAGE) % PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_in_the_last_page() {
        for len in [1, 15, 16, 17, 4096, 16_829_568] {
            assert!(padded(len) >= len && padded(len) - len < PAGE && padded(len) % PAGE == LAST, "{len}");
        }
    }
}
