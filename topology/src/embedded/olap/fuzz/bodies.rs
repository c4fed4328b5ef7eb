//! Pure: no I/O, no clock, no async.
//!
//! Bodies, encoded and in blocks. The first byte says how, the second how large they may become.

use std::io::Read as _;

use bytes::Bytes;

use crate::embedded::olap::blocks::{BlockReader, compress_into};
use crate::embedded::olap::body::ReceivedBody;
use crate::embedded::olap::encoding::Encoding;

const ENCODINGS: [Option<Encoding>; 6] = [
    None,
    Some(Encoding::Brotli),
    Some(Encoding::Lz4),
    Some(Encoding::Zstd),
    Some(Encoding::Gzip),
    Some(Encoding::Deflate),
];

pub fn check(bytes: &[u8]) {
    let [how, limit, rest @ ..] = bytes else { return };
    if *how == 0xff {
        return check_blocks(rest);
    }
    let max_bytes = usize::from(*limit) * 256;
    let pieces = rest.chunks(1 + usize::from(how >> 4)).map(Bytes::copy_from_slice);
    let encoding = ENCODINGS[usize::from(how & 0x07) % ENCODINGS.len()];
    let has_blocks = how & 0x08 != 0;
    let is_plain = encoding.is_none() && !has_blocks;
    let Ok(mut source) = ReceivedBody::of(pieces).decode(encoding, has_blocks, max_bytes) else { return };
    let mut total = 0;
    // An error ends it; a plain body was measured when it was received.
    while let Ok(Some(piece)) = source.next_piece() {
        assert!(!piece.is_empty());
        total += piece.len();
        assert!(is_plain || total <= max_bytes, "{total} bytes where {max_bytes} are the limit");
    }
    assert!(!is_plain || total == rest.len());
}

fn check_blocks(plain: &[u8]) {
    let mut packed = Vec::new();
    compress_into(plain, &mut packed);
    let mut read = Vec::new();
    let outcome = BlockReader::new(packed.as_slice(), usize::MAX).read_to_end(&mut read);
    assert!(outcome.is_ok_and(|_| read == plain), "blocks are not what was packed");
}
