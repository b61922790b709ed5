//! The agent's options on the kernel's command line.

use tart_proto::time::TIME_FACTOR_OPTION;

/// The transport to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// `tart.transport=virtio-serial`
    VirtioSerial,
    /// `tart.transport=vsock`
    Vsock,
}

/// What the command line says. The last of an option wins, as everywhere in the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    line: String,
}

impl Options {
    /// Those of this guest.
    #[must_use]
    pub fn read() -> Self {
        Self { line: std::fs::read_to_string("/proc/cmdline").unwrap_or_default() }
    }

    /// The transport that is asked for, if any. An unknown value asks for nothing.
    #[must_use]
    pub fn transport(&self) -> Option<Choice> {
        match self.value("tart.transport")? {
            "virtio-serial" => Some(Choice::VirtioSerial),
            "vsock" => Some(Choice::Vsock),
            _ => None,
        }
    }

    /// By how much time limits are longer than usual, if they are: the host is slow.
    #[must_use]
    pub fn time_factor(&self) -> Option<&str> {
        self.value(TIME_FACTOR_OPTION)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut words = self.line.split_whitespace().rev();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        Options { line: line.to_owned() }
    }

    #[test]
    fn the_last_transport_wins() {
        let parse = |line| options(line).transport();
        assert_eq!(parse("quiet tart.transport=vsock panic=-1\n"), Some(Choice::Vsock));
        assert_eq!(parse("tart.transport=vsock tart.transport=virtio-serial"), Some(Choice::VirtioSerial));
        assert_eq!(parse("tart.transport=pigeon"), None);
        assert_eq!(parse("xtart.transport=vsock"), None);
        assert_eq!(parse("tart.transport"), None);
    }

    #[test]
    fn a_slow_host_says_by_how_much() {
        assert_eq!(options("quiet tart.time_factor=2.5 tart.transport=vsock\n").time_factor(), Some("2.5"));
        assert_eq!(options("tart.time_factor_of_another=2 quiet").time_factor(), None);
    }
}
