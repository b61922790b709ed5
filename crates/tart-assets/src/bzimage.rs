//! Linux's boot image for x86: a real-mode header, a decompressor and the compressed kernel.
//!
//! The fields are those of the kernel's Documentation/arch/x86/boot.rst.

use crate::{
    decompress,
    elf::Elf,
    error::{AssetError, Result},
};

/// The largest kernel, in bytes. Debian's has 45 MiB.
pub(crate) const MAX_KERNEL: u64 = 512 << 20;

/// The first protocol with `payload_offset`.
const PROTOCOL_2_08: u16 = 0x0208;
const SECTOR: usize = 512;

/// A kernel in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// The uncompressed ELF file; nothing if the kernel was one already.
    pub(crate) vmlinux: Option<Vec<u8>>,
    /// What `uname -r` says, if the kernel tells.
    pub(crate) release: Option<String>,
}

/// Takes a bzImage apart, or recognises an ELF kernel.
pub(crate) fn open(image: &[u8]) -> Result<Kernel> {
    if Elf::parse(image).is_some() {
        return Ok(Kernel { vmlinux: None, release: release_of_elf(image) });
    }
    let header = Header { image };
    let malformed = |reason: String| AssetError::malformed("the kernel", reason);
    if header.u16(0x1fe) != Some(0xaa55) || header.at::<4>(0x202) != Some(*b"HdrS") {
        return Err(malformed("neither a bzImage nor an ELF file for x86-64".into()));
    }
    let payload = header.payload().ok_or_else(|| {
        malformed(
            "its header says nothing of where the compressed kernel is; give the uncompressed vmlinux".into(),
        )
    })?;
    let vmlinux = decompress::first_stream(payload, MAX_KERNEL)
        .map_err(|error| malformed(format!("cannot decompress it: {error}")))?;
    if Elf::parse(&vmlinux).is_none() {
        let format = decompress::Format::of(payload);
        return Err(malformed(format!("what is in it is no ELF file ({format:?} payload)")));
    }
    Ok(Kernel { vmlinux: Some(vmlinux), release: header.release() })
}

struct Header<'a> {
    image: &'a [u8],
}

impl<'a> Header<'a> {
    fn payload(&self) -> Option<&'a [u8]> {
        if self.u16(0x206)? < PROTOCOL_2_08 {
            return None;
        }
        // Four for historical reasons if the field is empty.
        let sectors = match self.at::<1>(0x1f1)? {
            [0] => 4,
            [n] => usize::from(n),
        };
        let base = (sectors + 1) * SECTOR;
        let start = base.checked_add(usize::try_from(self.u32(0x248)?).ok()?)?;
        let size = usize::try_from(self.u32(0x24c)?).ok()?;
        self.image.get(start..start.checked_add(size)?).filter(|payload| !payload.is_empty())
    }

    fn release(&self) -> Option<String> {
        let start = usize::from(self.u16(0x20e)?).checked_add(0x200)?;
        first_word(self.image.get(start..)?)
    }

    fn at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.image.get(offset..)?.first_chunk::<N>().copied()
    }

    fn u16(&self, offset: usize) -> Option<u16> {
        self.at(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Option<u32> {
        self.at(offset).map(u32::from_le_bytes)
    }
}

/// From the banner `Linux version RELEASE (…`. The same words with a `%s` are in the kernel too.
fn release_of_elf(image: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = image;
    while let Some(at) = rest.windows(BANNER.len()).position(|window| window == BANNER) {
        rest = rest.get(at + BANNER.len()..)?;
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return first_word(rest);
        }
    }
    None
}

fn first_word(bytes: &[u8]) -> Option<String> {
    let word: Vec<u8> = bytes.iter().copied().take(128).take_while(u8::is_ascii_graphic).collect();
    String::from_utf8(word).ok().filter(|word| !word.is_empty())
}

/// Images for tests.
#[cfg(test)]
pub(crate) mod samples {
    /// A bzImage with this payload.
    pub(crate) fn bzimage(payload: &[u8], release: &str) -> Vec<u8> {
        let mut image = vec![0; 2 * super::SECTOR];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        image[0x300..0x300 + release.len()].copy_from_slice(release.as_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend_from_slice(payload);
        image
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::elf;

    #[test]
    fn the_payload_is_unpacked() {
        let vmlinux = elf::samples::elf(".text", b"code");
        let mut payload = zstd::encode_all(&*vmlinux, 1).unwrap();
        payload.extend_from_slice(&9u32.to_le_bytes());
        let kernel = open(&samples::bzimage(&payload, "6.12.1-cloud (someone)")).unwrap();
        assert_eq!(kernel.vmlinux, Some(vmlinux));
        assert_eq!(kernel.release.as_deref(), Some("6.12.1-cloud"));
    }

    #[test]
    fn an_elf_kernel_is_taken_as_it_is() {
        let image = elf::samples::elf(".rodata", b"Linux version %s\0Linux version 6.1.9-fc (x)\0");
        let kernel = open(&image).unwrap();
        assert_eq!(kernel, Kernel { vmlinux: None, release: Some("6.1.9-fc".into()) });
    }

    #[test]
    fn what_is_no_kernel_is_refused_with_a_reason() {
        let reason = |image: &[u8]| open(image).unwrap_err().to_string();
        insta::assert_snapshot!(reason(b"hello"), @"the kernel cannot be used: neither a bzImage nor an ELF file for x86-64");
        insta::assert_snapshot!(reason(&samples::bzimage(b"", "6")), @"the kernel cannot be used: its header says nothing of where the compressed kernel is; give the uncompressed vmlinux");
        let text = zstd::encode_all(&b"text"[..], 1).unwrap();
        insta::assert_snapshot!(reason(&samples::bzimage(&text, "6")), @"the kernel cannot be used: what is in it is no ELF file (Zstd payload)");
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0x1f0usize..0x260, value: u32, junk in prop::collection::vec(any::<u8>(), 0..64)) {
            let payload = zstd::encode_all(&*elf::samples::elf(".text", b"code"), 1).unwrap();
            let mut image = samples::bzimage(&payload, "6.1");
            image[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let _any = open(&image);
            image.truncate(at);
            image.extend_from_slice(&junk);
            let _any = open(&image);
        }
    }
}
