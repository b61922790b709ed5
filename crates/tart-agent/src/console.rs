//! Messages on the guest's console, which the host keeps the tail of for its failure reports.

use std::{fmt::Display, io::Write, os::fd::AsFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Writes one line. PID 1's standard error is the console; a console that does not take it is no reason to stop.
pub fn say(line: impl Display) {
    let text = format!("tart-agent: {line}\n");
    let _unreported = std::io::stderr().write_all(text.as_bytes());
}

/// From now on, what the console does not take at once is lost. A guest that Firecracker saved while it wrote there has a
/// console that takes nothing any more (before 1.16), and would wait for it once the kernel's buffer is full.
pub fn never_wait() {
    without_waiting(std::io::stderr());
}

fn without_waiting(console: impl AsFd) {
    let _unchanged = fcntl_getfl(&console).and_then(|flags| fcntl_setfl(&console, flags | OFlags::NONBLOCK));
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::ErrorKind};

    use super::*;

    #[test]
    fn a_console_that_takes_nothing_holds_nobody_up() {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        without_waiting(&writer);
        let mut writer = File::from(writer);
        let full = std::iter::repeat_with(|| writer.write_all(&[0; 4096])).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), ErrorKind::WouldBlock);
    }
}
