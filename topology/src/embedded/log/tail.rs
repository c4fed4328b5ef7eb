//! Pure: no I/O, no clock, no async.
//!
//! The recent records of a partition in memory, so that tailing readers never touch the disk.

use std::collections::{HashSet, VecDeque};

use neonhub_schemas::record::Record;

/// Everything the store holds from offset `from` on; compacted-away records are missing here as there.
#[derive(Debug)]
pub struct Tail {
    from: u64,
    records: VecDeque<Record>,
}

/// Memory a cached record takes.
pub fn weight(record: &Record) -> usize {
    record.size() + std::mem::size_of::<Record>() + 64
}

impl Tail {
    pub fn starting_at(from: u64) -> Self {
        Self { from, records: VecDeque::new() }
    }

    pub fn covers(&self, offset: u64) -> bool {
        offset >= self.from
    }

    pub fn push(&mut self, record: Record) {
        self.records.push_back(record);
    }

    /// The records from `offset` on.
    pub fn records_from(&self, offset: u64) -> impl Iterator<Item = &Record> {
        let index = self.records.partition_point(|record| record.offset < offset);
        self.records.range(index..)
    }

    /// Forgets what lies before `offset`.
    pub fn evict_before(&mut self, offset: u64) {
        while self.records.front().is_some_and(|record| record.offset < offset) {
            self.records.pop_front();
        }
        self.from = self.from.max(offset);
    }

    pub fn remove(&mut self, offsets: &HashSet<u64>) {
        self.records.retain(|record| !offsets.contains(&record.offset));
    }
}
