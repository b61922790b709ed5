//! The guest's memory: what is saved of it, and whether it comes back page by page.

mod guest;
mod userfault;

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::FileExt as _, net::UnixStream},
    },
};

use serde::Deserialize;
use serde_json::{Value, json};

use guest::{Guest, HUGE};

/// A page that is not huge, in bytes.
const PAGE: u64 = 4096;

/// How it introduces its memory, and what it makes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Manner {
    /// As Firecracker does.
    #[default]
    Proper,
    /// Something that is no JSON.
    Garbage,
    /// More of an array than anybody wants.
    Endless,
    /// Half of the message, and the end.
    Half,
    /// No descriptor beside the message.
    NoDescriptor,
    /// Two of them.
    TwoDescriptors,
    /// One of a file.
    OtherDescriptor,
    /// Contents from beyond the end of the memory.
    Beyond,
    /// The same addresses twice.
    Overlapping,
    /// Pages of another size.
    OtherPages,
    /// As Firecracker does, with huge pages or none at all.
    OnlyHuge,
    /// As Firecracker does, but with a page that it does not tell of, which it touches when a disk is exchanged.
    Untold,
}

/// What a page is full of before it is saved, if it is not empty.
fn contents(number: u64, pages: u64) -> Option<u8> {
    let full = number < 3 || number == 511 || number == 512 || number == pages / 2 || number + 1 == pages;
    full.then(|| u8::try_from(number % 250).unwrap_or_default() + 1)
}

/// Writes memory of this many bytes.
pub(crate) fn save(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    let pages = bytes / PAGE;
    let full = (0..pages).filter_map(|number| Some((number, contents(number, pages)?)));
    for (number, byte) in full {
        file.write_all_at(&vec![byte; usize::try_from(PAGE).unwrap_or_default()], number * PAGE)?;
    }
    Ok(())
}

/// Memory that is served by another process, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Served {
    guest: Guest,
    untold: Option<Guest>,
    /// As Firecracker, which never closes it.
    _connection: UnixStream,
    _userfault: OwnedFd,
}

impl Served {
    /// Maps memory that is with the server at `socket`, and sees whether it is what was saved, unless it is that of a
    /// guest that `boots`.
    pub(crate) fn load(
        socket: &str,
        bytes: u64,
        huge: bool,
        manner: Manner,
        boots: bool,
    ) -> Result<Self, String> {
        let failed = |what: &'static str| move |e: io::Error| format!("Failed to {what}: {e}");
        let guest =
            Guest::map(bytes, huge, manner == Manner::OnlyHuge).map_err(failed("map guest memory"))?;
        let userfault = userfault::create().map_err(failed("create userfaultfd"))?;
        for (start, len) in guest.parts() {
            userfault::register(&userfault, start, len).map_err(failed("register guest memory"))?;
        }
        let connection = UnixStream::connect(socket).map_err(failed("connect to UFFD unix stream"))?;
        introduce(&connection, &guest, &userfault, manner).map_err(failed("send to UFFD unix stream"))?;
        let untold = match manner {
            Manner::Untold => {
                let other = Guest::map(2 * PAGE, false, false).map_err(failed("map guest memory"))?;
                for (start, len) in other.parts() {
                    userfault::register(&userfault, start, len).map_err(failed("register guest memory"))?;
                }
                Some(other)
            }
            _ => None,
        };
        if !boots {
            guest.check()?;
            guest.give_back()?;
        }
        Ok(Self { guest, untold, _connection: connection, _userfault: userfault })
    }

    /// Copies all of it to a file, page by page as the server gives them.
    pub(crate) fn copy(&self, to: &File) -> io::Result<()> {
        let mut at = 0;
        while let Some(page) = self.guest.page(at) {
            if page.iter().any(|byte| *byte != 0) {
                to.write_all_at(&page, at)?;
            }
            at += PAGE;
        }
        Ok(())
    }

    /// What its guest does when a disk is exchanged: it looks at its memory.
    pub(crate) fn touch(&self) -> Result<(), String> {
        if let Some(untold) = &self.untold {
            untold.byte(0);
        }
        self.guest.check_kept()
    }
}

/// The message.
fn introduce(mut stream: &UnixStream, guest: &Guest, userfault: &OwnedFd, manner: Manner) -> io::Result<()> {
    let mut offset = 0;
    let page_size = if guest.is_huge() { HUGE } else { PAGE };
    let mut mappings: Vec<Value> = Vec::new();
    for (start, size) in guest.parts() {
        mappings.push(json!({
            "base_host_virt_addr": start,
            "size": size,
            "offset": offset,
            "page_size": page_size,
            "page_size_kib": page_size,
        }));
        offset += size;
    }
    let last = mappings.last_mut().and_then(Value::as_object_mut).ok_or(io::ErrorKind::InvalidInput)?;
    let mut set = |key: &str, value: Value| drop(last.insert(key.to_owned(), value));
    match manner {
        Manner::Beyond => set("offset", json!(offset)),
        Manner::Overlapping => {
            set("base_host_virt_addr", json!(guest.parts().next().map(|(start, _)| start)));
        }
        Manner::OtherPages => set("page_size", json!(1 << 30)),
        _ => {}
    }
    let text = json!(mappings).to_string();
    let null = File::open("/dev/urandom")?;
    let (text, descriptors) = match manner {
        Manner::Garbage => ("no message".to_owned(), vec![userfault.as_fd()]),
        Manner::Endless => ("[".to_owned() + &" ".repeat(1 << 17), vec![userfault.as_fd()]),
        Manner::Half => (text.split_at(text.len() / 2).0.to_owned(), vec![userfault.as_fd()]),
        Manner::NoDescriptor => (text, Vec::new()),
        Manner::TwoDescriptors => (text, vec![userfault.as_fd(), userfault.as_fd()]),
        Manner::OtherDescriptor => (text, vec![null.as_fd()]),
        _ => (text, vec![userfault.as_fd()]),
    };
    let sent = userfault::send(stream, text.as_bytes(), &descriptors)?;
    if manner == Manner::Endless {
        stream.write_all(text.as_bytes().get(sent..).unwrap_or_default())?;
    }
    if manner == Manner::Half {
        stream.shutdown(std::net::Shutdown::Both)?;
    }
    Ok(())
}
