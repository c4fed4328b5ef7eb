//! Pure: no I/O, no clock, no async.
//!
//! Rows for one table, as the bytes that are sent. They are written once, when their records arrive, into pieces that are
//! never moved again: halving a block, or leaving rows out, only cuts the list of where the rows are.

use std::collections::BTreeSet;

use bytes::Bytes;
use neonhub_schemas::event::Source;
use neonhub_schemas::record::{Record, TopicPartition};

use super::rows::{DeadLetterRow, Table, source_number, write_row};

/// A piece is full when the next row may not fit; sent as one chunk, it is large enough for the network.
const PIECE_BYTES: usize = 1 << 20;
/// Beside the record's value: lengths, numbers, places.
const ROW_OVERHEAD_BYTES: usize = 512;

/// Where a row is.
#[derive(Clone, Copy, Debug)]
struct Mark {
    offset: u64,
    /// The row's own time.
    at_ms: i64,
    piece: u32,
    start: u32,
    end: u32,
}

/// Rows in the order of their offsets.
#[derive(Clone, Debug)]
pub struct Block {
    pub table: Table,
    /// Where the rows come from.
    pub place: TopicPartition,
    pieces: Vec<Bytes>,
    marks: Vec<Mark>,
}

/// What the rows of a block span.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub first_offset: u64,
    pub last_offset: u64,
    pub earliest_ms: i64,
    pub latest_ms: i64,
}

impl Block {
    /// Dead letters that the landing itself writes.
    #[must_use]
    pub fn of_dead_letters(place: TopicPartition, letters: &[DeadLetterRow]) -> Self {
        let mut builder = BlockBuilder::new(place);
        builder.table = Table::DeadLetters;
        for letter in letters {
            builder.make_room(letter.original.len());
            let start = builder.open.len();
            letter.write(&mut builder.open);
            builder.mark(letter.offset, letter.received_at, start);
        }
        builder.finish()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The number of the rows' family of events, where they are events.
    #[must_use]
    pub fn source_number(&self) -> Option<i8> {
        Source::of_topic(self.place.topic).filter(|_| self.table == Table::Events).map(source_number)
    }

    /// Each row's bytes.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.marks.iter().map(|mark| &self.pieces[mark.piece as usize][mark.start as usize..mark.end as usize])
    }

    /// All rows' bytes, in few slices.
    #[must_use]
    pub fn chunks(&self) -> Vec<Bytes> {
        let mut ranges: Vec<(u32, u32, u32)> = Vec::with_capacity(self.pieces.len());
        for mark in &self.marks {
            match ranges.last_mut() {
                Some((piece, _, end)) if *piece == mark.piece && *end == mark.start => *end = mark.end,
                _ => ranges.push((mark.piece, mark.start, mark.end)),
            }
        }
        let slice = |(piece, start, end)| self.pieces[piece as usize].slice(start as usize..end as usize);
        ranges.into_iter().map(slice).collect()
    }

    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        self.marks.iter().map(|mark| mark.offset)
    }

    /// `None` without rows.
    #[must_use]
    pub fn extent(&self) -> Option<Extent> {
        let times = || self.marks.iter().map(|mark| mark.at_ms);
        Some(Extent {
            first_offset: self.marks.first()?.offset,
            last_offset: self.marks.last()?.offset,
            earliest_ms: times().min()?,
            latest_ms: times().max()?,
        })
    }

    /// Leaves out the rows with these offsets.
    #[must_use]
    pub fn without(mut self, landed: &BTreeSet<u64>) -> Self {
        self.marks.retain(|mark| !landed.contains(&mark.offset));
        self
    }

    /// Cuts in two halves, to find the row that is at fault.
    #[must_use]
    pub fn halves(mut self) -> (Self, Self) {
        let second = self.marks.split_off(self.marks.len() / 2);
        let second = Self { marks: second, pieces: self.pieces.clone(), ..self };
        (self, second)
    }
}

/// A block that grows.
#[derive(Debug)]
pub struct BlockBuilder {
    table: Table,
    place: TopicPartition,
    full: Vec<Bytes>,
    open: Vec<u8>,
    marks: Vec<Mark>,
    full_bytes: usize,
}

impl BlockBuilder {
    #[must_use]
    pub fn new(place: TopicPartition) -> Self {
        let table = Table::of(place.topic);
        Self { table, place, full: Vec::new(), open: Vec::new(), marks: Vec::new(), full_bytes: 0 }
    }

    /// Writes the row of a record; heartbeats and tombstones have none.
    ///
    /// # Errors
    /// Why the record has no row.
    pub fn push(&mut self, record: &Record) -> Result<(), String> {
        self.make_room(record.value.as_ref().map_or(0, Bytes::len));
        let start = self.open.len();
        if let Some(at_ms) = write_row(record, &mut self.open)? {
            self.mark(record.offset, at_ms, start);
        }
        Ok(())
    }

    /// Memory that the rows take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.full_bytes + self.open.len() + self.marks.len() * size_of::<Mark>()
    }

    #[must_use]
    pub fn finish(mut self) -> Block {
        self.seal();
        Block { table: self.table, place: self.place, pieces: self.full, marks: self.marks }
    }

    fn make_room(&mut self, value_bytes: usize) {
        if !self.open.is_empty() && self.open.len() + value_bytes + ROW_OVERHEAD_BYTES > PIECE_BYTES {
            self.seal();
            // There is more than one: the next is likely to be filled, too.
            self.open.reserve_exact(PIECE_BYTES);
        }
    }

    fn seal(&mut self) {
        self.full_bytes += self.open.len();
        self.full.push(Bytes::from(std::mem::take(&mut self.open)));
    }

    #[expect(clippy::cast_possible_truncation, reason = "pieces and rows are far below 4 GiB")]
    fn mark(&mut self, offset: u64, at_ms: i64, start: usize) {
        let (piece, start, end) = (self.full.len() as u32, start as u32, self.open.len() as u32);
        self.marks.push(Mark { offset, at_ms, piece, start, end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::landing::EventRow;
    use neonhub_schemas::event::Envelope;
    use neonhub_schemas::topics::Topic;

    const PLACE: TopicPartition = TopicPartition { topic: Topic::EventsBehavior, partition: 3 };
    const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");

    fn record(offset: u64, padding: usize) -> Record {
        let mut event = Envelope::decode(TRACK.as_bytes()).unwrap();
        event.message_id = format!("m-{offset}").into();
        event.context = format!("{{\"padding\":\"{}\"}}", "x".repeat(padding)).into();
        let raw = event.to_raw_record();
        Record {
            topic: PLACE.topic,
            partition: PLACE.partition,
            offset,
            timestamp_ms: 0,
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
        }
    }

    fn ids(block: &Block) -> Vec<String> {
        block.rows().map(|row| EventRow::read(row).unwrap().message_id.into_owned()).collect()
    }

    #[test]
    fn a_block_of_several_pieces_is_cut_and_sent_without_losing_a_row() {
        let mut builder = BlockBuilder::new(PLACE);
        (0..40).for_each(|offset| builder.push(&record(offset, 100_000)).unwrap());
        let block = builder.finish();
        assert!(block.pieces.len() > 3 && block.pieces.len() == block.chunks().len());
        let whole: Vec<u8> = block.rows().flatten().copied().collect();
        assert_eq!(block.chunks().concat(), whole);
        let row = EventRow::read(block.rows().nth(7).unwrap()).unwrap();
        let event = record(7, 100_000);
        let event = Envelope::decode(event.value.as_deref().unwrap()).unwrap();
        assert_eq!((row.offset, row.partition, row.timestamp), (7, 3, event.timestamp_ms));
        assert_eq!((row.properties, row.context), (event.properties, event.context));
        let (first, second) = block.clone().halves();
        assert_eq!([ids(&first), ids(&second)].concat(), ids(&block));
        let rest = block.without(&BTreeSet::from([0, 5, 6, 39]));
        assert_eq!((rest.len(), rest.chunks().concat().len()), (36, rest.rows().flatten().count()));
        assert_eq!(rest.extent().map(|extent| (extent.first_offset, extent.last_offset)), Some((1, 38)));
    }

    #[test]
    fn what_has_no_row_writes_nothing() {
        let mut builder = BlockBuilder::new(PLACE);
        builder.push(&record(0, 0)).unwrap();
        let before = builder.bytes();
        builder.push(&Record { value: None, ..record(1, 0) }).unwrap();
        assert!(builder.push(&Record { value: Some(Bytes::from_static(b"{}")), ..record(2, 0) }).is_err());
        assert_eq!((builder.bytes(), builder.finish().offsets().collect::<Vec<_>>()), (before, vec![0]));
    }
}
