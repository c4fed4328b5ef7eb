//! Pure: ClickHouse's own compressed blocks (`compress=1`, `decompress=1`):
//! CityHash128 v1.0.2 of what follows (16 bytes), method (1), compressed size with these 9 bytes (4), size (4), data.

use std::io::{self, Read};

const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;
const METHOD_ZSTD: u8 = 0x90;
/// ClickHouse refuses larger blocks too.
const MAX_BLOCK_BYTES: u32 = 1 << 30;
const OUTPUT_BLOCK_BYTES: usize = 1 << 20;

/// Appends `data` to `output` as LZ4 blocks of at most 1 MiB each.
pub fn compress_into(data: &[u8], output: &mut Vec<u8>) {
    for piece in data.chunks(OUTPUT_BLOCK_BYTES) {
        let start = output.len();
        let body_start = start + CHECKSUM_BYTES + HEADER_BYTES;
        output.resize(body_start + lz4_flex::block::get_maximum_output_size(piece.len()), 0);
        // The buffer has the maximal size, so this cannot fail; an empty block would be refused by every reader.
        let Ok(packed) = lz4_flex::block::compress_into(piece, &mut output[body_start..]) else { continue };
        output.truncate(body_start + packed);
        let header = start + CHECKSUM_BYTES;
        output[header] = METHOD_LZ4;
        output[header + 1..header + 5].copy_from_slice(&little_endian_size(packed + HEADER_BYTES));
        output[header + 5..header + 9].copy_from_slice(&little_endian_size(piece.len()));
        let checksum = checksum(&output[header..]);
        output[start..header].copy_from_slice(&checksum);
    }
}

fn little_endian_size(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// The two halves of the hash are written high half first.
fn checksum(data: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cityhash_rs::cityhash_102_128(data).rotate_left(64).to_le_bytes()
}

/// Reads a stream of compressed blocks.
pub struct BlockReader<R> {
    source: R,
    /// A block that would be larger is refused before it is unpacked.
    max_bytes: usize,
    packed: Vec<u8>,
    block: Vec<u8>,
    position: usize,
}

impl<R: Read> BlockReader<R> {
    pub fn new(source: R, max_bytes: usize) -> Self {
        Self { source, max_bytes, packed: Vec::new(), block: Vec::new(), position: 0 }
    }

    /// False at the end of the stream.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut head = [0_u8; CHECKSUM_BYTES + HEADER_BYTES];
        let first = loop {
            match self.source.read(&mut head) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        if first == 0 {
            return Ok(false);
        }
        self.source.read_exact(&mut head[first..])?;
        let size_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let method = head[CHECKSUM_BYTES];
        let packed_size = size_at(CHECKSUM_BYTES + 1);
        let block_size = size_at(CHECKSUM_BYTES + 5);
        if packed_size as usize <= HEADER_BYTES || packed_size > MAX_BLOCK_BYTES || block_size > MAX_BLOCK_BYTES {
            return Err(invalid(format!(
                "a compressed block of {packed_size} and {block_size} bytes is out of bounds"
            )));
        }
        if block_size as usize > self.max_bytes {
            return Err(invalid(format!("a compressed block of {block_size} bytes is larger than the body may be")));
        }
        // Grown by what arrives, not by what the header claims.
        self.packed.clear();
        self.packed.extend_from_slice(&head[CHECKSUM_BYTES..]);
        let wanted = u64::from(packed_size) - HEADER_BYTES as u64;
        let got = (&mut self.source).take(wanted).read_to_end(&mut self.packed)?;
        if got as u64 != wanted {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a compressed block is cut off"));
        }
        if checksum(&self.packed) != head[..CHECKSUM_BYTES] {
            return Err(invalid("the checksum of a compressed block doesn't match".to_owned()));
        }
        let body = &self.packed[HEADER_BYTES..];
        let size = block_size as usize;
        self.position = 0;
        self.block = match method {
            METHOD_NONE => body.to_vec(),
            // LZ4 packs at most 255 times: a larger claim is a lie and must not reserve memory.
            METHOD_LZ4 if size / 256 <= body.len() => {
                lz4_flex::block::decompress(body, size).map_err(|error| invalid(error.to_string()))?
            }
            METHOD_ZSTD => {
                let mut block = Vec::new();
                zstd::stream::read::Decoder::new(body)?.take(u64::from(block_size) + 1).read_to_end(&mut block)?;
                block
            }
            other => return Err(invalid(format!("unknown compression method 0x{other:02x} or impossible size"))),
        };
        if self.block.len() != size {
            return Err(invalid("a compressed block has another size than it says".to_owned()));
        }
        Ok(true)
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.block.len() - self.position);
        buffer[..count].copy_from_slice(&self.block[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        BlockReader::new(packed, usize::MAX).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn blocks_round_trip_over_several_blocks() {
        let plain: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
        let mut packed = Vec::new();
        compress_into(&plain, &mut packed);
        assert!(packed.len() < plain.len());
        assert_eq!(unpack(&packed).unwrap(), plain);
        assert_eq!(unpack(&[]).unwrap(), b"");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let mut packed = Vec::new();
        compress_into(b"some bytes that stay as they are, are, are, are", &mut packed);
        for bit in 0..packed.len() * 8 {
            let mut broken = packed.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&broken).is_err(), "bit {bit}");
        }
        for length in 1..packed.len() {
            assert!(unpack(&packed[..length]).is_err(), "length {length}");
        }
    }
}
