//! The contract of the log, run on the disk and on its twin in memory alike.

mod atomicity;
mod crash;
mod damage;
mod faults;
mod forgetting;
mod membership;
mod model;
mod reading;
mod reopening;
mod waiting;

use std::sync::Arc;

use bytes::Bytes;
use neonhub_schemas::record::{Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use super::{CommitMode, FjallStore, Log, LogOptions, MemoryStore, Store};

/// Where a log under test lives; it can be opened again after a crash.
pub enum Home {
    Memory(Arc<MemoryStore>),
    Disk(tempfile::TempDir),
}

impl Home {
    pub fn both() -> [Self; 2] {
        [Self::Memory(Arc::new(MemoryStore::new())), Self::Disk(tempfile::tempdir().unwrap())]
    }

    pub fn open(&self, options: LogOptions) -> Log {
        match self {
            Self::Memory(store) => Log::over(store.clone(), options, CommitMode::Inline).unwrap(),
            Self::Disk(folder) => Log::open(folder.path(), options).unwrap(),
        }
    }

    /// The store itself, to look at it or damage it; no log may be open on it.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => store.clone(),
            Self::Disk(folder) => Arc::new(FjallStore::open(folder.path(), &LogOptions::for_testing()).unwrap()),
        }
    }
}

/// Runs the check on both.
pub fn on_both(check: impl Fn(&Home, Log)) {
    for home in Home::both() {
        let log = home.open(LogOptions::for_testing());
        check(&home, log);
    }
}

pub const fn place(topic: Topic, partition: u32) -> TopicPartition {
    TopicPartition { topic, partition }
}

pub fn record(at: TopicPartition, key: &str, value: &str, timestamp_ms: i64) -> NewRecord {
    NewRecord {
        topic: at.topic,
        partition: Some(at.partition),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Headers::new().with("schema", "1"),
        timestamp_ms,
    }
}

pub fn tombstone(at: TopicPartition, key: &str, timestamp_ms: i64) -> NewRecord {
    NewRecord { value: None, ..record(at, key, "", timestamp_ms) }
}

/// Everything from `from` on, fetched in small pieces.
pub fn read_all(log: &Log, at: TopicPartition, from: u64) -> Vec<Record> {
    let mut records = Vec::new();
    let mut position = from;
    loop {
        let fetched = log.read(at, position, 7, 1 << 20).unwrap();
        records.extend(fetched.records);
        if fetched.next_offset == fetched.end_offset {
            return records;
        }
        assert!(fetched.next_offset > position, "reading goes on");
        position = fetched.next_offset;
    }
}

/// (offset, key, value) of each, for short comparisons.
pub fn summary(records: &[Record]) -> Vec<(u64, String, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    records.iter().map(|record| (record.offset, text(&record.key), record.value.as_ref().map(text))).collect()
}
