//! Pure: no I/O, no clock, no async.
//!
//! Compressed bodies. The first byte says how the rest is encoded, the second how large it may become.

use std::io::Write as _;

use crate::http::fuzzed::{DecompressError, Encoding, decompress};

const ALL: [Encoding; 4] = [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli, Encoding::Zstd];

pub(super) fn check(bytes: &[u8]) {
    let [how, cap, rest @ ..] = bytes else { return };
    let cap = usize::from(*cap) * 64;
    let pick = |shift: u8| ALL[usize::from(how >> shift) % ALL.len()];
    let encodings = match how >> 6 {
        0 => return check_round_trip(pick(0), rest),
        1 => vec![pick(0)],
        2 => vec![pick(0), pick(2)],
        _ => vec![pick(0), pick(2), pick(4)],
    };
    match decompress(rest, &encodings, cap) {
        Ok(plain) => {
            assert!(plain.len() <= cap, "{} bytes where {cap} are the limit", plain.len());
            // One byte less is too little, and is said to be.
            if let Some(less) = plain.len().checked_sub(1) {
                let cut = decompress(rest, &encodings, less);
                assert!(cut.is_err(), "the limit of {less} is not kept");
            }
        }
        Err(DecompressError::TooLarge(beginning)) => assert!(beginning.len() <= cap),
        Err(DecompressError::Corrupt(detail)) => assert!(!detail.is_empty()),
    }
}

fn check_round_trip(encoding: Encoding, plain: &[u8]) {
    let Ok(packed) = pack(encoding, plain) else { return };
    assert_eq!(decompress(&packed, &[encoding], plain.len()).ok().as_deref(), Some(plain), "{encoding:?}");
}

fn pack(encoding: Encoding, plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let quick = flate2::Compression::fast();
    match encoding {
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), quick);
            encoder.write_all(plain)?;
            encoder.finish()
        }
        Encoding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), quick);
            encoder.write_all(plain)?;
            encoder.finish()
        }
        Encoding::Brotli => {
            let mut packed = Vec::new();
            brotli::CompressorWriter::new(&mut packed, 4_096, 1, 16).write_all(plain)?;
            Ok(packed)
        }
        Encoding::Zstd => zstd::encode_all(plain, 1),
    }
}
