//! Bodies in gzip, deflate, br and zstd, also one in another, never larger than a cap.

use std::io::{self, BufRead as _, BufReader, Read};

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// More encodings than this around one body are no honest client's.
const MOST_ENCODINGS: usize = 3;
/// RFC 8878 recommends to support windows of 8 MB; more would be memory for a sender's asking.
const ZSTD_WINDOW_LOG: u32 = 23;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecompressError {
    /// The beginning, up to the cap.
    TooLarge(Vec<u8>),
    Corrupt(String),
}

/// The encodings in the order they were applied.
///
/// # Errors
/// The name of one that is not supported.
pub(crate) fn encodings(headers: &HeaderMap) -> Result<Vec<Encoding>, String> {
    let mut found = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| "not ASCII".to_owned())?;
        for name in text.split(',').map(str::trim) {
            found.push(match name.to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Encoding::Gzip,
                "deflate" => Encoding::Deflate,
                "br" => Encoding::Brotli,
                "zstd" => Encoding::Zstd,
                _ => return Err(crate::accept::shortened(name)),
            });
        }
    }
    if found.len() > MOST_ENCODINGS {
        return Err(format!("more than {MOST_ENCODINGS} encodings"));
    }
    Ok(found)
}

/// Undoes the encodings, the last applied first, streaming: no stage ever gives out more than `cap` bytes.
pub(crate) fn decompress(bytes: &[u8], encodings: &[Encoding], cap: usize) -> Result<Vec<u8>, DecompressError> {
    let corrupt = |error: io::Error| DecompressError::Corrupt(error.to_string());
    let mut reader: Box<dyn Read + '_> = Box::new(bytes);
    for encoding in encodings.iter().rev() {
        let stage = stage(*encoding, reader).map_err(corrupt)?;
        reader = Box::new(Capped { inner: stage, left: cap });
    }
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(4).min(cap));
    match reader.read_to_end(&mut out) {
        Ok(_) => Ok(out),
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<OverCap>()) => Err(DecompressError::TooLarge(out)),
        Err(error) => Err(corrupt(error)),
    }
}

fn stage<'a>(encoding: Encoding, reader: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match encoding {
        Encoding::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Encoding::Brotli => Box::new(brotli::Decompressor::new(reader, 4_096)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Encoding::Deflate => {
            let mut buffered = BufReader::new(reader);
            // RFC 9110 means zlib by "deflate", some clients send the bare stream.
            if is_zlib(buffered.fill_buf()?) {
                Box::new(ZlibDecoder::new(buffered))
            } else {
                Box::new(DeflateDecoder::new(buffered))
            }
        }
    })
}

fn is_zlib(head: &[u8]) -> bool {
    matches!(head, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0)
}

#[derive(Debug, thiserror::Error)]
#[error("larger than allowed after decompression")]
struct OverCap;

struct Capped<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            // Only the end is welcome now.
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::other(OverCap)),
            };
        }
        let most = buffer.len().min(self.left);
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_encoding_and_one_in_another_is_undone() {
        let text = b"{\"event\":\"e\"}".repeat(50);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(&text).unwrap();
        let mut brotli_bytes = Vec::new();
        brotli::CompressorWriter::new(&mut brotli_bytes, 4_096, 5, 20).write_all(&text).unwrap();
        let zstd_bytes = zstd::encode_all(text.as_slice(), 3).unwrap();
        let cases = [
            (gzip(&text), vec![Encoding::Gzip]),
            (zlib.finish().unwrap(), vec![Encoding::Deflate]),
            (raw.finish().unwrap(), vec![Encoding::Deflate]),
            (brotli_bytes, vec![Encoding::Brotli]),
            (gzip(&zstd_bytes), vec![Encoding::Zstd, Encoding::Gzip]),
            (zstd_bytes, vec![Encoding::Zstd]),
            (text.clone(), vec![]),
        ];
        for (bytes, encodings) in cases {
            assert_eq!(decompress(&bytes, &encodings, text.len()), Ok(text.clone()), "{encodings:?}");
            if !encodings.is_empty() {
                let expected = Err(DecompressError::TooLarge(text[..text.len() - 1].to_vec()));
                assert_eq!(decompress(&bytes, &encodings, text.len() - 1), expected, "{encodings:?}");
                let cut = decompress(&bytes[..bytes.len() / 2], &encodings, text.len());
                assert!(matches!(cut, Err(DecompressError::Corrupt(_))), "{encodings:?}: {cut:?}");
            }
        }
    }

    #[test]
    fn bombs_are_stopped_at_any_stage() {
        let bomb = gzip(&vec![0; 50_000_000]);
        assert!(
            matches!(decompress(&bomb, &[Encoding::Gzip], 1_000), Err(DecompressError::TooLarge(kept)) if kept.len() == 1_000)
        );
        // Empty gzip members, many of them, well compressed: nothing comes out at the end, but much in between.
        let nested = gzip(&gzip(b"").repeat(100_000));
        let outcome = decompress(&nested, &[Encoding::Gzip, Encoding::Gzip], 1_000);
        assert!(matches!(outcome, Err(DecompressError::TooLarge(_) | DecompressError::Corrupt(_))), "{outcome:?}");
    }

    #[test]
    fn encodings_are_read_from_the_head() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, text.parse().unwrap());
            encodings(&headers)
        };
        assert_eq!(read("GZIP, br"), Ok(vec![Encoding::Gzip, Encoding::Brotli]));
        assert_eq!(read("identity"), Ok(vec![]));
        assert_eq!(read("lzma"), Err("lzma".to_owned()));
        assert!(read("gzip,gzip,gzip,gzip").is_err());
    }
}
