//! Pure: the encodings of HTTP bodies, both ways, and ClickHouse's own blocks beside them.

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::blocks;

const BROTLI_BUFFER_BYTES: usize = 64 << 10;
const BROTLI_WINDOW_BITS: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Brotli,
    Lz4,
    Zstd,
    Gzip,
    Deflate,
}

impl Encoding {
    /// ClickHouse's order of preference: br, lz4, zstd, gzip, deflate; weights are ignored, as ClickHouse does.
    pub fn preferred_of(accepted: &str) -> Option<Self> {
        let offers: Vec<&str> = accepted
            .split(',')
            .filter(|offer| !offer.contains("q=0") || offer.contains("q=0."))
            .map(|offer| offer.split(';').next().unwrap_or_default().trim())
            .collect();
        [Self::Brotli, Self::Lz4, Self::Zstd, Self::Gzip, Self::Deflate]
            .into_iter()
            .find(|encoding| offers.iter().any(|offer| offer.eq_ignore_ascii_case(encoding.name())))
    }

    /// `None` for a name that nobody knows.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Brotli, Self::Lz4, Self::Zstd, Self::Gzip, Self::Deflate]
            .into_iter()
            .find(|encoding| name.trim().eq_ignore_ascii_case(encoding.name()))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    pub fn decoder<'a>(self, source: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Brotli => Box::new(brotli::Decompressor::new(source, BROTLI_BUFFER_BYTES)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(source)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(source)?),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(source)),
            Self::Deflate => Box::new(flate2::read::ZlibDecoder::new(source)),
        })
    }
}

/// Encodes a response piece by piece; each call gives what is ready to be sent.
pub enum Encoder {
    Identity,
    NativeBlocks,
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
}

impl Encoder {
    pub fn new(native_blocks: bool, encoding: Option<Encoding>) -> io::Result<Self> {
        let quick = flate2::Compression::new(3);
        Ok(match encoding {
            _ if native_blocks => Self::NativeBlocks,
            None => Self::Identity,
            Some(Encoding::Brotli) => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER_BYTES,
                3,
                BROTLI_WINDOW_BITS,
            ))),
            Some(Encoding::Lz4) => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))),
            Some(Encoding::Zstd) => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
            Some(Encoding::Gzip) => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), quick)),
            Some(Encoding::Deflate) => Self::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), quick)),
        })
    }

    /// Without encoding the piece goes through uncopied.
    pub fn encode(&mut self, piece: Bytes) -> io::Result<Bytes> {
        match self {
            Self::Identity => return Ok(piece),
            Self::NativeBlocks => {
                let mut packed = Vec::new();
                blocks::compress_into(&piece, &mut packed);
                return Ok(packed.into());
            }
            Self::Brotli(writer) => writer.write_all(&piece)?,
            Self::Lz4(writer) => writer.write_all(&piece)?,
            Self::Zstd(writer) => writer.write_all(&piece)?,
            Self::Gzip(writer) => writer.write_all(&piece)?,
            Self::Deflate(writer) => writer.write_all(&piece)?,
        }
        Ok(self.take_written())
    }

    /// Everything so far, decodable by the reader without what may follow.
    pub fn flush(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Identity | Self::NativeBlocks => {}
            Self::Brotli(writer) => writer.flush()?,
            Self::Lz4(writer) => writer.flush()?,
            Self::Zstd(writer) => writer.flush()?,
            Self::Gzip(writer) => writer.flush()?,
            Self::Deflate(writer) => writer.flush()?,
        }
        Ok(self.take_written())
    }

    fn take_written(&mut self) -> Bytes {
        match self {
            Self::Identity | Self::NativeBlocks => Bytes::new(),
            Self::Brotli(writer) => std::mem::take(writer.get_mut()).into(),
            Self::Lz4(writer) => std::mem::take(writer.get_mut()).into(),
            Self::Zstd(writer) => std::mem::take(writer.get_mut()).into(),
            Self::Gzip(writer) => std::mem::take(writer.get_mut()).into(),
            Self::Deflate(writer) => std::mem::take(writer.get_mut()).into(),
        }
    }

    pub fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Identity | Self::NativeBlocks => Bytes::new(),
            Self::Brotli(writer) => writer.into_inner().into(),
            Self::Lz4(writer) => writer.finish().map_err(io::Error::other)?.into(),
            Self::Zstd(writer) => writer.finish()?.into(),
            Self::Gzip(writer) => writer.finish()?.into(),
            Self::Deflate(writer) => writer.finish()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encoding; 5] = [Encoding::Brotli, Encoding::Lz4, Encoding::Zstd, Encoding::Gzip, Encoding::Deflate];

    #[test]
    fn every_encoding_round_trips_in_pieces() {
        for encoding in ALL {
            let mut encoder = Encoder::new(false, Some(encoding)).unwrap();
            let mut packed = Vec::new();
            let mut plain = Vec::new();
            for number in 0..50_u32 {
                let piece = Bytes::from(format!("piece {number} ").repeat(500));
                plain.extend_from_slice(&piece);
                packed.extend_from_slice(&encoder.encode(piece).unwrap());
            }
            packed.extend_from_slice(&encoder.flush().unwrap());
            packed.extend_from_slice(&encoder.finish().unwrap());
            let mut read = Vec::new();
            encoding.decoder(packed.as_slice()).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, plain, "{encoding:?}");
        }
    }

    #[test]
    fn what_is_flushed_can_be_read_before_the_end() {
        for encoding in ALL {
            let mut encoder = Encoder::new(false, Some(encoding)).unwrap();
            let mut packed = encoder.encode(Bytes::from_static(b"an exception")).unwrap().to_vec();
            packed.extend_from_slice(&encoder.flush().unwrap());
            let mut read = [0_u8; 12];
            encoding.decoder(packed.as_slice()).unwrap().read_exact(&mut read).unwrap();
            assert_eq!(&read, b"an exception", "{encoding:?}");
        }
    }

    #[test]
    fn the_preferred_encoding_is_clickhouses() {
        assert_eq!(Encoding::preferred_of("gzip, deflate, br"), Some(Encoding::Brotli));
        assert_eq!(Encoding::preferred_of("gzip;q=1.0, zstd"), Some(Encoding::Zstd));
        assert_eq!(Encoding::preferred_of("gzip;q=0, *"), None);
        assert_eq!(Encoding::preferred_of("identity"), None);
    }
}
