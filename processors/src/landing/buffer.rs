//! Pure: no I/O, no clock, no async.

use std::collections::VecDeque;

use bytes::Bytes;
use neonhub_schemas::record::{CommittedOffset, Record};

/// Records of one partition that wait to be landed, and the plan that is written down for them.
#[derive(Debug, Default)]
pub struct PartitionBuffer {
    /// The next offset to land.
    pub from: u64,
    /// The end of the batch that is planned.
    pub planned_to: Option<u64>,
    /// The plan was found written down: its batch may have been inserted.
    pub is_recovered: bool,
    records: VecDeque<Record>,
    bytes: usize,
    oldest_at_ms: Option<i64>,
    pub retry_at_ms: i64,
    pub failures: u32,
    pub paused: bool,
}

impl PartitionBuffer {
    /// Goes on where the group stands; a plan that was written down is repeated as it was.
    #[must_use]
    pub fn open(committed: Option<&CommittedOffset>) -> Self {
        let planned_to = committed.and_then(|committed| committed.metadata.strip_prefix("to=")?.parse().ok());
        let from = committed.map_or(0, |committed| committed.offset);
        Self { from, planned_to, is_recovered: planned_to.is_some(), ..Self::default() }
    }

    pub fn push(&mut self, mut record: Record, now_ms: i64) {
        if record.offset < self.from {
            return;
        }
        // A record's bytes are a slice of all that was polled with it: kept for long, they are a copy of their own.
        record.key = Bytes::copy_from_slice(&record.key);
        record.value = record.value.map(|value| Bytes::copy_from_slice(&value));
        self.bytes += record.size();
        self.oldest_at_ms.get_or_insert(now_ms);
        self.records.push_back(record);
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the planned batch is complete, or a new one should be planned.
    #[must_use]
    pub fn is_due(&self, now_ms: i64, linger_ms: i64, max_rows: usize) -> bool {
        if now_ms < self.retry_at_ms {
            return false;
        }
        match self.planned_to {
            // The last record of a plan can only be missing when compaction took it; then a later one is there.
            Some(to) => self.records.back().is_some_and(|last| last.offset + 1 >= to),
            None => {
                self.records.len() >= max_rows
                    || self.oldest_at_ms.is_some_and(|oldest| now_ms - oldest >= linger_ms || now_ms < oldest)
            }
        }
    }

    /// Fixes the end of the next batch. Returns it.
    pub fn plan(&mut self, max_rows: usize, max_bytes: usize) -> Option<u64> {
        if self.planned_to.is_none() {
            let mut bytes = 0;
            for record in self.records.iter().take(max_rows) {
                bytes += record.size();
                self.planned_to = Some(record.offset + 1);
                if bytes >= max_bytes {
                    break;
                }
            }
        }
        self.planned_to
    }

    /// Whether the batch may have been inserted before.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.is_recovered || self.failures > 0
    }

    /// The records of the planned batch.
    pub fn batch(&self) -> impl Iterator<Item = &Record> {
        let to = self.planned_to.unwrap_or(self.from);
        self.records.iter().take_while(move |record| record.offset < to)
    }

    /// The batch is in: go on after it.
    pub fn landed(&mut self, now_ms: i64) {
        let Some(to) = self.planned_to.take() else { return };
        while self.records.front().is_some_and(|record| record.offset < to) {
            if let Some(record) = self.records.pop_front() {
                self.bytes -= record.size();
            }
        }
        self.from = to;
        self.failures = 0;
        self.is_recovered = false;
        self.oldest_at_ms = (!self.records.is_empty()).then_some(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use neonhub_schemas::{Headers, Topic};

    fn record(offset: u64) -> Record {
        Record {
            topic: Topic::EventsCampaign,
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Bytes::from_static(b"k"),
            value: Some(Bytes::from_static(b"123456789")),
            headers: Headers::new(),
        }
    }

    #[test]
    fn a_written_plan_is_repeated_exactly() {
        let committed = CommittedOffset { offset: 10, metadata: "to=13".to_owned() };
        let mut buffer = PartitionBuffer::open(Some(&committed));
        buffer.push(record(9), 0);
        buffer.push(record(10), 0);
        assert!(!buffer.is_due(1_000_000, 0, 1));
        buffer.push(record(12), 0);
        buffer.push(record(13), 0);
        assert!(buffer.is_due(0, 1_000, 1_000));
        assert_eq!(buffer.plan(1, 1), Some(13));
        assert_eq!(buffer.batch().map(|record| record.offset).collect::<Vec<_>>(), [10, 12]);
        buffer.landed(0);
        assert_eq!((buffer.from, buffer.bytes()), (13, 10));
    }

    #[test]
    fn a_batch_is_due_by_time_or_size_and_bounded_by_rows_and_bytes() {
        let mut buffer = PartitionBuffer::open(None);
        assert!(!buffer.is_due(0, 0, 0) || buffer.batch().next().is_none());
        (0..5).for_each(|offset| buffer.push(record(offset), 100));
        assert!(!buffer.is_due(199, 100, 6));
        assert!(buffer.is_due(200, 100, 6));
        assert!(buffer.is_due(100, 100, 5));
        assert_eq!(buffer.plan(3, usize::MAX), Some(3));
        buffer.landed(300);
        assert_eq!(buffer.plan(3, 10), Some(4));
    }
}
