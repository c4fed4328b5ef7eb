//! Pure: no I/O, no clock, no async.

use std::collections::VecDeque;
use std::sync::Arc;

use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};

use super::block::{Block, BlockBuilder};
use super::rows::{DeadLetterRow, dead_letter_of};

/// How much is inserted at once.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub max_rows: usize,
    pub max_bytes: usize,
}

/// Records `[from, to)` as rows: what one plan names and one token stands for.
#[derive(Debug)]
pub struct Batch {
    pub from: u64,
    pub to: u64,
    pub rows: Block,
    /// For records that have no row.
    pub unlandable: Vec<DeadLetterRow>,
    bytes: usize,
    oldest_at_ms: i64,
}

/// A batch that still grows.
#[derive(Debug)]
struct OpenBatch {
    to: u64,
    records: usize,
    rows: BlockBuilder,
    unlandable: Vec<DeadLetterRow>,
    oldest_at_ms: i64,
}

/// What waits to be landed of one partition, and the plan that is written down for its first batch. Batches are fixed as
/// their records arrive, while the ones before them are being inserted.
#[derive(Debug)]
pub struct PartitionBuffer {
    place: TopicPartition,
    limits: BatchLimits,
    /// The next offset to land.
    from: u64,
    /// The next offset that is not here yet.
    next_offset: u64,
    /// The end of a batch that was found written down and is not complete yet.
    recovered_to: Option<u64>,
    /// The first is the one that is planned, if any is.
    complete: VecDeque<Arc<Batch>>,
    open: Option<OpenBatch>,
    is_planned: bool,
    /// The plan was found written down: its batch may have been inserted.
    is_recovered: bool,
    in_flight: bool,
    complete_bytes: usize,
    retry_at_ms: i64,
    pub failures: u32,
    pub paused: bool,
}

impl PartitionBuffer {
    /// Goes on where the group stands; a plan that was written down is repeated as it was.
    #[must_use]
    pub fn open(place: TopicPartition, committed: Option<&CommittedOffset>, limits: BatchLimits) -> Self {
        let from = committed.map_or(0, |committed| committed.offset);
        let planned_to = committed.and_then(|committed| committed.metadata.strip_prefix("to=")?.parse().ok());
        Self {
            place,
            limits,
            from,
            next_offset: from,
            recovered_to: planned_to.filter(|to| *to > from),
            complete: VecDeque::new(),
            open: None,
            is_planned: false,
            is_recovered: false,
            in_flight: false,
            complete_bytes: 0,
            retry_at_ms: i64::MIN,
            failures: 0,
            paused: false,
        }
    }

    /// Whether the record was taken: one that is here already is passed over.
    pub fn push(&mut self, record: &Record, now_ms: i64) -> bool {
        if record.offset < self.next_offset {
            return false;
        }
        self.next_offset = record.offset + 1;
        // The last record of a recovered plan can only be missing when compaction took it; then a later one is there.
        if let Some(to) = self.recovered_to.filter(|to| record.offset >= *to) {
            self.close(to, now_ms);
        }
        let place = self.place;
        let open = self.open.get_or_insert_with(|| OpenBatch {
            to: 0,
            records: 0,
            rows: BlockBuilder::new(place),
            unlandable: Vec::new(),
            oldest_at_ms: now_ms,
        });
        if let Err(detail) = open.rows.push(record) {
            open.unlandable.push(dead_letter_of(record, &detail));
        }
        open.records += 1;
        open.to = record.offset + 1;
        let is_full = open.records >= self.limits.max_rows || open.rows.bytes() >= self.limits.max_bytes;
        let is_complete = self.recovered_to.map_or(is_full, |to| record.offset + 1 == to);
        if is_complete {
            self.close(record.offset + 1, now_ms);
        }
        true
    }

    /// Nothing more goes into the open batch.
    fn close(&mut self, to: u64, now_ms: i64) {
        let from = self.complete.back().map_or(self.from, |last| last.to);
        let open = self.open.take();
        let oldest_at_ms = open.as_ref().map_or(now_ms, |open| open.oldest_at_ms);
        let (rows, unlandable) =
            open.map_or_else(|| (BlockBuilder::new(self.place), Vec::new()), |open| (open.rows, open.unlandable));
        let bytes = rows.bytes();
        self.complete_bytes += bytes;
        let rows = rows.finish();
        self.complete.push_back(Arc::new(Batch { from, to, rows, unlandable, bytes, oldest_at_ms }));
        if self.recovered_to.take().is_some() {
            self.is_planned = true;
            self.is_recovered = true;
        }
    }

    /// Memory that waits, or is being inserted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.complete_bytes + self.open.as_ref().map_or(0, |open| open.rows.bytes())
    }

    /// Since when the next batch waits, if it may be inserted now, should anyone be free to do it: it is full, a good part
    /// of it is there, or it has waited long enough.
    #[must_use]
    pub fn due_since_ms(&self, now_ms: i64, linger_ms: i64) -> Option<i64> {
        if self.in_flight || now_ms < self.retry_at_ms {
            return None;
        }
        if let Some(first) = self.complete.front() {
            return Some(first.oldest_at_ms);
        }
        let open = self.open.as_ref().filter(|_| self.recovered_to.is_none())?;
        let is_worth_it = open.records >= self.limits.max_rows / 4;
        // A clock that was set back must not hold it up.
        let is_due = is_worth_it || now_ms - open.oldest_at_ms >= linger_ms || now_ms < open.oldest_at_ms;
        is_due.then_some(open.oldest_at_ms)
    }

    /// Fixes the next batch, if there is one that nobody inserts yet. Returns the plan, if it is not written down yet.
    pub fn plan(&mut self, now_ms: i64) -> Option<CommittedOffset> {
        if let Some(to) = self.open.as_ref().map(|open| open.to).filter(|_| self.complete.is_empty()) {
            self.close(to, now_ms);
        }
        let first = self.complete.front().filter(|_| !self.is_planned)?;
        self.is_planned = true;
        Some(CommittedOffset { offset: self.from, metadata: format!("to={}", first.to) })
    }

    /// The planned batch, which is being inserted from now on.
    pub fn begin(&mut self) -> Option<Arc<Batch>> {
        let first = self.complete.front().filter(|_| self.is_planned && !self.in_flight)?;
        self.in_flight = true;
        Some(Arc::clone(first))
    }

    /// Whether the batch may have been inserted before.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.is_recovered || self.failures > 0
    }

    /// The batch is in: go on after it. `None`: none was being inserted, the outcome is that of another time.
    pub fn landed(&mut self) -> Option<Arc<Batch>> {
        let batch = self.complete.pop_front_if(|_| self.in_flight)?;
        self.in_flight = false;
        self.is_planned = false;
        self.is_recovered = false;
        self.failures = 0;
        self.complete_bytes -= batch.bytes;
        self.from = batch.to;
        Some(batch)
    }

    /// The batch may be in or not: it is inserted again, later each time. Returns for how long it waits.
    pub fn failed(&mut self, now_ms: i64) -> Option<i64> {
        if !self.in_flight {
            return None;
        }
        self.in_flight = false;
        self.failures += 1;
        let backoff_ms = (100_i64 << self.failures.min(6)).min(5_000);
        self.retry_at_ms = now_ms + backoff_ms;
        Some(backoff_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use neonhub_schemas::{Headers, Topic};

    const PLACE: TopicPartition = TopicPartition { topic: Topic::EventsCampaign, partition: 0 };
    const ANY: BatchLimits = BatchLimits { max_rows: usize::MAX, max_bytes: usize::MAX };

    /// Not an event, so each is a dead letter: they say which records a batch has.
    fn record(offset: u64) -> Record {
        Record {
            topic: PLACE.topic,
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Bytes::from_static(b"k"),
            value: Some(Bytes::from_static(b"123456789")),
            headers: Headers::new(),
        }
    }

    fn offsets(batch: &Batch) -> Vec<u64> {
        batch.unlandable.iter().map(|letter| letter.offset).collect()
    }

    #[test]
    fn a_written_plan_is_repeated_exactly() {
        let committed = CommittedOffset { offset: 10, metadata: "to=13".to_owned() };
        let limits = BatchLimits { max_rows: 1, max_bytes: 1 };
        let mut buffer = PartitionBuffer::open(PLACE, Some(&committed), limits);
        assert_eq!([9, 10, 10].map(|offset| buffer.push(&record(offset), 0)), [false, true, false]);
        assert_eq!(buffer.due_since_ms(1_000_000, 0), None);
        // 12 was compacted away.
        assert_eq!([11, 13].map(|offset| buffer.push(&record(offset), 5)), [true, true]);
        assert_eq!(buffer.due_since_ms(5, 1_000), Some(0));
        assert_eq!(buffer.plan(5), None);
        let batch = buffer.begin().unwrap();
        assert_eq!((batch.from, batch.to, offsets(&batch)), (10, 13, vec![10, 11]));
        assert!(buffer.is_repeated() && buffer.begin().is_none() && buffer.due_since_ms(5, 0).is_none());
        assert_eq!(buffer.landed().unwrap().to, 13);
        assert_eq!(buffer.plan(5), Some(CommittedOffset { offset: 13, metadata: "to=14".to_owned() }));
        assert!(!buffer.is_repeated());
    }

    #[test]
    fn a_batch_is_due_by_time_or_size_and_bounded_by_rows() {
        let mut buffer = PartitionBuffer::open(PLACE, None, BatchLimits { max_rows: 8, ..ANY });
        assert_eq!(buffer.due_since_ms(0, 0), None);
        buffer.push(&record(0), 100);
        assert_eq!((buffer.due_since_ms(199, 100), buffer.due_since_ms(200, 100)), (None, Some(100)));
        assert_eq!(buffer.due_since_ms(50, 100), Some(100));
        buffer.push(&record(1), 101);
        assert_eq!(buffer.due_since_ms(101, 100), Some(100));
        assert_eq!((0..9).filter(|offset| buffer.push(&record(*offset), 102)).count(), 7);
        assert_eq!(buffer.plan(102).unwrap().metadata, "to=8");
        assert_eq!(offsets(&buffer.begin().unwrap()), (0..8).collect::<Vec<_>>());
        assert!(buffer.landed().is_some() && buffer.landed().is_none());
        assert_eq!((buffer.due_since_ms(201, 100), buffer.due_since_ms(202, 100)), (None, Some(102)));
        assert_eq!(buffer.plan(202), Some(CommittedOffset { offset: 8, metadata: "to=9".to_owned() }));
    }

    #[test]
    fn what_failed_keeps_its_batch_and_waits() {
        let mut buffer = PartitionBuffer::open(PLACE, None, ANY);
        buffer.push(&record(0), 0);
        assert!(buffer.plan(0).is_some() && buffer.begin().is_some());
        buffer.push(&record(1), 0);
        assert_eq!(buffer.failed(0), Some(200));
        assert_eq!((buffer.due_since_ms(199, 0), buffer.due_since_ms(200, 0)), (None, Some(0)));
        assert_eq!(buffer.plan(200), None);
        assert!(buffer.is_repeated());
        assert_eq!(offsets(&buffer.begin().unwrap()), [0]);
        assert_eq!(buffer.failed(200), Some(400));
        assert_eq!(buffer.failed(200), None);
    }
}
