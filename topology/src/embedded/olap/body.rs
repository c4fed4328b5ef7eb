//! The body of a request: received whole before its statement starts, so that no insert is ever cut off in the middle
//! (the engine keeps the blocks of an insert that breaks), then read piece by piece without joining it.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::blocks::BlockReader;
use super::encoding::Encoding;
use super::exception::{CANNOT_DECOMPRESS, Exception, MEMORY_LIMIT_EXCEEDED, REQUEST_TOO_LARGE};

/// The memory budget of all bodies is counted in units of this size.
pub const BUDGET_UNIT_BYTES: usize = 64 << 10;
const DECODED_PIECE_BYTES: usize = 1 << 20;

/// A received body and its share of the memory budget.
#[derive(Default)]
pub struct ReceivedBody {
    pieces: VecDeque<Bytes>,
    reserved: Option<OwnedSemaphorePermit>,
}

impl ReceivedBody {
    /// Receives `body`, at most `max_bytes` of it, while `budget` lasts.
    pub async fn receive(mut body: Body, max_bytes: usize, budget: &Arc<Semaphore>) -> Result<Self, Exception> {
        let mut received = Self::default();
        let mut bytes = 0_usize;
        let mut reserved_bytes = 0_usize;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Exception::bad_arguments(format!("the body cannot be read: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            bytes += piece.len();
            if bytes > max_bytes {
                return Err(too_large(max_bytes));
            }
            if bytes > reserved_bytes {
                let units = (bytes - reserved_bytes).div_ceil(BUDGET_UNIT_BYTES);
                let permit = u32::try_from(units)
                    .ok()
                    .and_then(|units| Arc::clone(budget).try_acquire_many_owned(units).ok())
                    .ok_or_else(budget_exhausted)?;
                reserved_bytes += units * BUDGET_UNIT_BYTES;
                match &mut received.reserved {
                    Some(reserved) => reserved.merge(permit),
                    None => received.reserved = Some(permit),
                }
            }
            if !piece.is_empty() {
                received.pieces.push_back(piece);
            }
        }
        Ok(received)
    }

    /// As if it had been received so.
    #[cfg(any(test, fuzzing))]
    pub fn of(pieces: impl Iterator<Item = Bytes>) -> Self {
        Self { pieces: pieces.collect(), reserved: None }
    }

    pub fn decode(
        self,
        encoding: Option<Encoding>,
        native_blocks: bool,
        max_bytes: usize,
    ) -> Result<DataSource, Exception> {
        let Self { pieces, reserved } = self;
        let plain = encoding.is_none() && !native_blocks;
        let content = if plain || pieces.is_empty() {
            Content::Plain(pieces)
        } else {
            let mut reader: Box<dyn Read + Send> = Box::new(PieceReader { pieces });
            if let Some(encoding) = encoding {
                reader = encoding.decoder(reader).map_err(undecodable)?;
            }
            if native_blocks {
                reader = Box::new(BlockReader::new(reader, max_bytes));
            }
            Content::Decoded(reader)
        };
        Ok(DataSource { content, decoded_bytes: 0, max_bytes, _reserved: reserved })
    }
}

fn too_large(max_bytes: usize) -> Exception {
    let message = format!("The request's body is larger than the limit of {max_bytes} bytes");
    Exception::new(REQUEST_TOO_LARGE, "TOO_MANY_BYTES", message)
}

fn budget_exhausted() -> Exception {
    let message = "The bodies of the running requests take all the memory that they may";
    Exception::new(MEMORY_LIMIT_EXCEEDED, "MEMORY_LIMIT_EXCEEDED", message)
}

fn undecodable(error: io::Error) -> Exception {
    Exception::new(
        CANNOT_DECOMPRESS,
        "CANNOT_DECOMPRESS",
        format!("The request's body cannot be decompressed: {error}"),
    )
}

enum Content {
    Plain(VecDeque<Bytes>),
    Decoded(Box<dyn Read + Send>),
}

/// A body as the engine wants it, decoded as it is read.
pub struct DataSource {
    content: Content,
    decoded_bytes: usize,
    max_bytes: usize,
    _reserved: Option<OwnedSemaphorePermit>,
}

impl DataSource {
    pub fn empty() -> Self {
        Self { content: Content::Plain(VecDeque::new()), decoded_bytes: 0, max_bytes: 0, _reserved: None }
    }

    /// True when no body came; an encoded one may still turn out empty.
    pub fn is_empty(&self) -> bool {
        matches!(&self.content, Content::Plain(pieces) if pieces.is_empty())
    }

    /// The next piece, never empty, or `None` at the end.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, Exception> {
        let reader = match &mut self.content {
            Content::Plain(pieces) => return Ok(pieces.pop_front()),
            Content::Decoded(reader) => reader,
        };
        let mut piece = Vec::new();
        reader.take(DECODED_PIECE_BYTES as u64).read_to_end(&mut piece).map_err(undecodable)?;
        self.decoded_bytes += piece.len();
        if self.decoded_bytes > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    /// At least `wanted` bytes joined, or all that there is.
    pub fn read_at_least(&mut self, wanted: usize) -> Result<Bytes, Exception> {
        let Some(first) = self.next_piece()? else { return Ok(Bytes::new()) };
        if first.len() >= wanted {
            return Ok(first);
        }
        let Some(second) = self.next_piece()? else { return Ok(first) };
        let mut joined = BytesMut::from(first);
        joined.extend_from_slice(&second);
        while joined.len() < wanted {
            let Some(piece) = self.next_piece()? else { break };
            joined.extend_from_slice(&piece);
        }
        Ok(joined.freeze())
    }
}

struct PieceReader {
    pieces: VecDeque<Bytes>,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.pieces.pop_front() else { return Ok(0) };
        let count = buffer.len().min(piece.len());
        buffer[..count].copy_from_slice(&piece.split_to(count));
        if !piece.is_empty() {
            self.pieces.push_front(piece);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn limits_hold_for_what_arrives_and_for_what_it_unpacks_to() {
        let budget = Arc::new(Semaphore::new(2));
        let receive = |bytes: usize, max| ReceivedBody::receive(Body::from(vec![0; bytes]), max, &budget);
        assert_eq!(receive(11, 10).await.err().unwrap().code, REQUEST_TOO_LARGE);
        let held = receive(BUDGET_UNIT_BYTES + 1, usize::MAX).await.unwrap();
        assert_eq!(receive(1, 10).await.err().unwrap().code, MEMORY_LIMIT_EXCEEDED);
        drop(held);
        assert!(receive(1, 10).await.is_ok());

        let bomb = zstd::encode_all(&vec![0_u8; 5 << 20][..], 1).unwrap();
        let budget = Arc::new(Semaphore::new(1000));
        let received = ReceivedBody::receive(Body::from(bomb), usize::MAX, &budget).await.unwrap();
        let mut source = received.decode(Some(Encoding::Zstd), false, 2 << 20).unwrap();
        assert_eq!(source.read_at_least(usize::MAX).unwrap_err().code, REQUEST_TOO_LARGE);
    }
}
