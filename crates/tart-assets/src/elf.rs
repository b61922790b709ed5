//! As much of ELF as kernels and their modules need: 64 bits, little endian.

/// Where things are in the headers.
const CLASS_64_LITTLE: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
const X86_64: u16 = 62;

/// A view of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    /// The file, if it is an ELF file for x86-64.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let elf = Self { bytes };
        (bytes.starts_with(&CLASS_64_LITTLE) && elf.u16(0x12)? == X86_64).then_some(elf)
    }

    /// The contents of a section.
    pub(crate) fn section(&self, wanted: &str) -> Option<&'a [u8]> {
        let count = usize::from(self.u16(0x3c)?);
        let names = self.contents(self.header(usize::from(self.u16(0x3e)?))?)?;
        (0..count).find_map(|index| {
            let header = self.header(index)?;
            let start = usize::try_from(self.u32(header)?).ok()?;
            let name = names.get(start..)?.split(|byte| *byte == 0).next()?;
            if name == wanted.as_bytes() { self.contents(header) } else { None }
        })
    }

    /// Offset of a section's header.
    fn header(&self, index: usize) -> Option<usize> {
        let size = usize::from(self.u16(0x3a)?);
        usize::try_from(self.u64(0x28)?).ok()?.checked_add(size.checked_mul(index)?)
    }

    fn contents(&self, header: usize) -> Option<&'a [u8]> {
        let start = usize::try_from(self.u64(header.checked_add(0x18)?)?).ok()?;
        let size = usize::try_from(self.u64(header.checked_add(0x20)?)?).ok()?;
        self.bytes.get(start..start.checked_add(size)?)
    }

    fn at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk::<N>().copied()
    }

    fn u16(&self, offset: usize) -> Option<u16> {
        self.at(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Option<u32> {
        self.at(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Option<u64> {
        self.at(offset).map(u64::from_le_bytes)
    }
}

/// Files for tests.
#[cfg(test)]
pub(crate) mod samples {
    /// An ELF file with one section apart from that of the names.
    pub(crate) fn elf(name: &str, contents: &[u8]) -> Vec<u8> {
        let mut names = vec![0];
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        let (names_at, contents_at) = (0x40, 0x40 + names.len());
        let headers_at = contents_at + contents.len();
        let mut file = vec![0; 0x40];
        file[..6].copy_from_slice(&super::CLASS_64_LITTLE);
        file[0x12] = 62;
        file[0x28..0x30].copy_from_slice(&(headers_at as u64).to_le_bytes());
        file[0x3a] = 0x40;
        file[0x3c] = 2;
        file.extend_from_slice(&names);
        file.extend_from_slice(contents);
        for (name, at, size) in [(0u32, names_at, names.len()), (1, contents_at, contents.len())] {
            let mut header = [0; 0x40];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_section_is_found_by_name() {
        let file = samples::elf(".modinfo", b"depends=virtio");
        let elf = Elf::parse(&file).unwrap();
        assert_eq!(elf.section(".modinfo").unwrap(), b"depends=virtio");
        assert!(elf.section(".text").is_none());
    }

    #[test]
    fn other_files_are_none() {
        assert!(Elf::parse(b"").is_none());
        assert!(Elf::parse(b"#!/bin/sh\n").is_none());
        let mut arm = samples::elf("a", b"b");
        arm[0x12] = 183;
        assert!(Elf::parse(&arm).is_none());
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..240, value: u64, cut in 0usize..240) {
            let mut file = samples::elf(".modinfo", b"depends=virtio");
            if let Some(place) = file.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<8>()) {
                *place = value.to_le_bytes();
            }
            for file in [&file[..], &file[..cut.min(file.len())]] {
                let _any = Elf::parse(file).and_then(|elf| elf.section(".modinfo"));
            }
        }
    }
}
