//! The feed in memory: for tests. Compaction and outages can be played.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use neonhub_schemas::record::{Headers, Record};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::WindowUpsert;

use super::{Batch, Bounds, FeedError, FeedLog, FeedReader};

#[derive(Debug)]
struct Inner {
    partitions: Vec<Vec<Record>>,
    starts: Vec<u64>,
    is_away: bool,
    readers: usize,
    /// Readers that there have been.
    opened: usize,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Clone, Debug)]
pub struct MemoryFeed(Arc<Shared>);

impl MemoryFeed {
    #[must_use]
    pub fn new(partitions: usize) -> Self {
        let inner = Inner {
            partitions: vec![Vec::new(); partitions],
            starts: vec![0; partitions],
            is_away: false,
            readers: 0,
            opened: 0,
        };
        Self(Arc::new(Shared { inner: Mutex::new(inner), changed: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_away(&self, is_away: bool) {
        self.lock().is_away = is_away;
        self.0.changed.notify_all();
    }

    /// Appends an upsert, or a tombstone; every offset is even, as if control records lay between. Returns the offset.
    pub fn append(&self, partition: usize, upsert: Option<&WindowUpsert>) -> u64 {
        let value = upsert.and_then(|upsert| serde_json::to_vec(upsert).ok()).map(Bytes::from);
        self.append_bytes(partition, value)
    }

    pub fn append_bytes(&self, partition: usize, value: Option<Bytes>) -> u64 {
        let mut inner = self.lock();
        let records = &mut inner.partitions[partition];
        let offset = records.last().map_or(0, |last| last.offset + 2);
        records.push(Record {
            topic: Topic::MetricsWindows,
            partition: u32::try_from(partition).unwrap_or(0),
            offset,
            timestamp_ms: 0,
            key: Bytes::from_static(b"key"),
            value,
            headers: Headers::new(),
        });
        drop(inner);
        self.0.changed.notify_all();
        offset
    }

    /// Waits until so many readers are left of so many that were opened at least; false: they are not after so long.
    #[must_use]
    pub fn await_readers_left(&self, left: usize, opened: usize, timeout: Duration) -> bool {
        let others = |inner: &mut Inner| inner.readers != left || inner.opened < opened;
        let waited = self.0.changed.wait_timeout_while(self.lock(), timeout, others);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Forgets what lies before `start`.
    pub fn delete_before(&self, partition: usize, start: u64) {
        let mut inner = self.lock();
        inner.starts[partition] = start;
        inner.partitions[partition].retain(|record| record.offset >= start);
    }
}

impl Inner {
    fn check(&self) -> Result<(), FeedError> {
        if self.is_away { Err(FeedError::Away("switched off".to_owned())) } else { Ok(()) }
    }

    fn at_end(&self, next: &[u64]) -> Vec<u32> {
        let has_end = |(records, next): (&Vec<Record>, &u64)| records.last().is_none_or(|last| last.offset < *next);
        let partitions = (0_u32..).zip(self.partitions.iter().zip(next));
        partitions.filter(|(_, partition)| has_end(*partition)).map(|(number, _)| number).collect()
    }

    fn collect(&self, next: &mut [u64], max_records: usize) -> Result<Vec<Record>, FeedError> {
        let mut found = Vec::new();
        for (partition, records) in self.partitions.iter().enumerate() {
            let from = next[partition];
            if from < self.starts[partition] {
                let start = self.starts[partition];
                return Err(FeedError::OutOfRange { partition: u32::try_from(partition).unwrap_or(0), start });
            }
            for record in records.iter().filter(|record| record.offset >= from).take(max_records) {
                next[partition] = record.offset + 1;
                found.push(record.clone());
            }
        }
        Ok(found)
    }
}

impl FeedLog for MemoryFeed {
    fn bounds(&self) -> Result<Vec<Bounds>, FeedError> {
        let inner = self.lock();
        inner.check()?;
        let bounds = inner.partitions.iter().zip(&inner.starts).map(|(records, start)| Bounds {
            start: *start,
            end: records.last().map_or(*start, |last| last.offset + 1),
        });
        Ok(bounds.collect())
    }

    fn reader(&self, from: &[u64]) -> Result<Box<dyn FeedReader>, FeedError> {
        let mut inner = self.lock();
        inner.check()?;
        inner.readers += 1;
        inner.opened += 1;
        self.0.changed.notify_all();
        Ok(Box::new(MemoryReader { feed: self.clone(), next: from.to_vec() }))
    }
}

struct MemoryReader {
    feed: MemoryFeed,
    next: Vec<u64>,
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.feed.lock().readers -= 1;
        self.feed.0.changed.notify_all();
    }
}

impl FeedReader for MemoryReader {
    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Batch, FeedError> {
        let mut inner = self.feed.lock();
        inner.check()?;
        let mut records = inner.collect(&mut self.next, max_records)?;
        if records.is_empty() {
            inner = self.feed.0.changed.wait_timeout(inner, timeout).unwrap_or_else(PoisonError::into_inner).0;
            inner.check()?;
            records = inner.collect(&mut self.next, max_records)?;
        }
        let at_end = inner.at_end(&self.next);
        Ok(Batch { records, next: self.next.clone(), at_end })
    }
}
