//! The compressions of packages, kernels and modules, told apart by their first bytes.

use std::io::{self, BufRead, BufReader, Read};

/// Most memory that a decoder may use; the largest xz preset takes 65 MiB.
const MEMORY: u64 = 256 << 20;

/// Blocks of the old lz4 format decompress to at most this.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// A compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Xz,
    Zstd,
    Lzma,
    /// What the kernel and `lz4 -l` write.
    Lz4Legacy,
    /// Not compressed, or not known.
    Plain,
}

impl Format {
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x5d, 0, 0, ..] => Self::Lzma,
            [a, b, c, d, ..] if [*a, *b, *c, *d] == LZ4_MAGIC => Self::Lz4Legacy,
            _ => Self::Plain,
        }
    }
}

/// A reader of what `reader` has, decompressed if it is compressed.
pub(crate) fn reader<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let format = Format::of(reader.fill_buf()?);
    decoder(format, reader)
}

fn decoder<'a>(format: Format, reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    use liblzma::{read::XzDecoder, stream::Stream};
    Ok(match format {
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Format::Xz => {
            const CONCATENATED: u32 = 0x08;
            Box::new(XzDecoder::new_stream(reader, Stream::new_stream_decoder(MEMORY, CONCATENATED)?))
        }
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        Format::Lzma => Box::new(XzDecoder::new_stream(reader, Stream::new_lzma_decoder(MEMORY)?)),
        Format::Lz4Legacy => {
            let mut bytes = Vec::new();
            reader.take(MEMORY).read_to_end(&mut bytes)?;
            Box::new(io::Cursor::new(lz4_legacy(&bytes, MEMORY)?))
        }
        Format::Plain => Box::new(reader),
    })
}

/// Decompresses one stream at the start of `bytes`, of at most `limit` bytes; whatever follows it is left alone.
pub(crate) fn first_stream(bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    use liblzma::{bufread::XzDecoder, stream::Stream};
    let reader: Box<dyn Read> = match Format::of(bytes) {
        Format::Gzip => Box::new(flate2::bufread::GzDecoder::new(bytes)),
        Format::Xz => Box::new(XzDecoder::new_stream(bytes, Stream::new_stream_decoder(MEMORY, 0)?)),
        Format::Lzma => Box::new(XzDecoder::new_stream(bytes, Stream::new_lzma_decoder(MEMORY)?)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame()),
        Format::Lz4Legacy => Box::new(io::Cursor::new(lz4_legacy(bytes, limit)?)),
        Format::Plain => Box::new(bytes),
    };
    all(reader, limit)
}

/// Everything that a reader has, if that is at most `limit` bytes.
pub(crate) fn all(reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut out)?;
    if out.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    Ok(out)
}

/// The magic number, then blocks with their size before them. What cannot be a block, as the size that a kernel's
/// build appends, ends the stream.
fn lz4_legacy(bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut rest = bytes.strip_prefix(&LZ4_MAGIC).ok_or_else(|| invalid("no lz4 magic number"))?;
    let mut out = Vec::new();
    while let Some((size, after)) = rest.split_first_chunk::<4>() {
        if *size == LZ4_MAGIC {
            rest = after;
            continue;
        }
        let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|_| invalid("lz4 block too large"))?;
        let Some((block, after)) = after.split_at_checked(size).filter(|_| size > 0) else { break };
        let data = lz4_flex::block::decompress(block, LZ4_BLOCK)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if (out.len() + data.len()) as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
        }
        out.extend_from_slice(&data);
        rest = after;
    }
    if out.is_empty() { Err(invalid("an lz4 stream without blocks")) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"a kernel, a kernel, my machine for a kernel";

    pub(crate) fn lz4(data: &[u8]) -> Vec<u8> {
        let mut out = LZ4_MAGIC.to_vec();
        for block in data.chunks(LZ4_BLOCK) {
            let block = lz4_flex::block::compress(block);
            out.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
            out.extend_from_slice(&block);
        }
        out
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn compressed(data: &[u8]) -> Vec<(Format, Vec<u8>)> {
        let xz = all(liblzma::read::XzEncoder::new(data, 0), u64::MAX).unwrap();
        let options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        let lzma = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
        let lzma = all(liblzma::read::XzEncoder::new_stream(data, lzma), u64::MAX).unwrap();
        vec![
            (Format::Gzip, gzip(data)),
            (Format::Xz, xz),
            (Format::Zstd, zstd::encode_all(data, 1).unwrap()),
            (Format::Lzma, lzma),
            (Format::Lz4Legacy, lz4(data)),
            (Format::Plain, data.to_vec()),
        ]
    }

    #[test]
    fn every_format_is_recognised_and_read() {
        for (format, bytes) in compressed(TEXT) {
            assert_eq!(Format::of(&bytes), format);
            assert_eq!(all(reader(&*bytes).unwrap(), 1000).unwrap(), TEXT, "{format:?}");
            assert_eq!(first_stream(&bytes, 1000).unwrap(), TEXT, "{format:?}");
        }
    }

    #[test]
    fn the_size_after_a_kernels_payload_is_no_part_of_it() {
        for (format, mut bytes) in compressed(TEXT) {
            if format == Format::Plain {
                continue;
            }
            bytes.extend_from_slice(&43u32.to_le_bytes());
            assert_eq!(first_stream(&bytes, 1000).unwrap(), TEXT, "{format:?}");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        for (format, bytes) in compressed(&vec![0; 1 << 20]) {
            let error = first_stream(&bytes, 4096).unwrap_err();
            assert_eq!(error.to_string(), "more than 4096 bytes", "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn junk_is_an_error_or_bytes(format in 0usize..6, junk in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..60) {
            let (_, mut bytes) = compressed(TEXT).swap_remove(format);
            bytes.truncate(cut);
            bytes.extend_from_slice(&junk);
            let _any = first_stream(&bytes, 1 << 20);
            let _any = reader(&*bytes).and_then(|reader| all(reader, 1 << 20));
        }
    }
}
