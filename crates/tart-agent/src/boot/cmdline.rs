//! The agent's options on the kernel's command line.

/// The transport to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// `tart.transport=virtio-serial`
    VirtioSerial,
    /// `tart.transport=vsock`
    Vsock,
}

/// The transport that the command line asks for, if any.
#[must_use]
pub fn transport() -> Option<Choice> {
    parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
}

/// The last option wins, as everywhere in the kernel. An unknown value asks for nothing.
fn parse(cmdline: &str) -> Option<Choice> {
    match cmdline.split_whitespace().rev().find_map(|word| word.strip_prefix("tart.transport="))? {
        "virtio-serial" => Some(Choice::VirtioSerial),
        "vsock" => Some(Choice::Vsock),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transport_wins() {
        assert_eq!(parse("quiet tart.transport=vsock panic=-1\n"), Some(Choice::Vsock));
        assert_eq!(parse("tart.transport=vsock tart.transport=virtio-serial"), Some(Choice::VirtioSerial));
        assert_eq!(parse("tart.transport=pigeon"), None);
        assert_eq!(parse("xtart.transport=vsock"), None);
    }
}
