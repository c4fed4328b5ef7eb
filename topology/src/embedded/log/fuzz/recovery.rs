//! Pure: no I/O, no clock, no async.
//!
//! Opening a log over any entries: it is refused by name, or works. The bytes are entries: a byte that says what, a byte
//! for the partition, a byte for the length, then number or value.

use std::sync::Arc;

use bytes::Bytes;
use neonhub_schemas::record::{Headers, NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;

use crate::embedded::log::{
    Batch, CommitMode, Durability, Log, LogError, LogOptions, MemoryStore, Space, Store, encoding, keys,
};

const TOPICS: [Topic; 3] = [Topic::RawBehavior, Topic::Control, Topic::MetricsWindows];

pub fn check(bytes: &[u8]) {
    let store = Arc::new(MemoryStore::new());
    let mut rest = bytes;
    for _ in 0..64 {
        let [what, which, length, tail @ ..] = rest else { break };
        let (content, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        let mut batch = Batch::default();
        entry(&mut batch, *what, *which, content);
        if store.write(batch, Durability::Synced).is_err() {
            return;
        }
    }
    let options = LogOptions { partitions: 2, ..LogOptions::for_testing() };
    match Log::over(store.clone(), options.clone(), CommitMode::Inline) {
        Ok(log) => check_log(&log),
        Err(error) => assert!(
            matches!(
                error,
                LogError::ForeignFormat { .. } | LogError::PartitionCountChanged { .. } | LogError::Damaged { .. }
            ),
            "{error}"
        ),
    }
}

fn place(which: u8) -> TopicPartition {
    TopicPartition { topic: TOPICS[usize::from(which) % TOPICS.len()], partition: u32::from(which >> 7) }
}

fn entry(batch: &mut Batch, what: u8, which: u8, content: &[u8]) {
    let place = place(which);
    let content = Bytes::copy_from_slice(content);
    let number = |at: usize| {
        let mut number = [0; 8];
        content.iter().skip(at).take(8).zip(&mut number).for_each(|(byte, slot)| *slot = *byte);
        u64::from_be_bytes(number)
    };
    match what % 10 {
        0 => batch.put(Space::Meta, keys::next_offset(place), content),
        1 => batch.put(Space::Meta, keys::start_offset(place), content),
        2 => batch.put(Space::Meta, keys::compacted_to(place), content),
        3 => batch.put(Space::Meta, keys::time_block(place, number(0)), content.slice(8.min(content.len())..)),
        4 => batch.put(Space::Meta, keys::group_offset("g", place), content),
        5 => batch.put(Space::Meta, keys::topic(place.topic), content),
        6 => batch.put(Space::Meta, Bytes::from_static(keys::FORMAT_KEY), content),
        7 => batch.put(Space::Records(place), content.clone(), content.slice(8.min(content.len())..)),
        8 => batch.put(Space::Meta, content.clone(), content),
        _ => {
            if let Ok(encoded) = encoding::encode(&record(place, i64::from_be_bytes(number(8).to_be_bytes()))) {
                batch.put(Space::Records(place), keys::record(number(0)), encoded);
            }
        }
    }
}

fn record(place: TopicPartition, timestamp_ms: i64) -> NewRecord {
    NewRecord {
        topic: place.topic,
        partition: Some(place.partition),
        key: Bytes::from_static(b"acme|anna"),
        value: Some(Bytes::from_static(b"{}")),
        headers: Headers::new(),
        timestamp_ms,
    }
}

/// What an open log owes, whatever it was opened over.
fn check_log(log: &Log) {
    for topic in TOPICS {
        for partition in 0..log.partitions(topic) {
            check_partition(log, TopicPartition { topic, partition });
        }
    }
    for _ in 0..20 {
        if log.maintain(1_600_000_000_000).map_or(true, |done| !done.more) {
            break;
        }
    }
}

fn check_partition(log: &Log, place: TopicPartition) {
    let (start, end) = (log.start_offset(place).unwrap_or(u64::MAX), log.end_offset(place).unwrap_or(0));
    assert!(start <= end, "{place}: {start} to {end}");
    let _found = log.offset_for_time(place, 1_600_000_000_000);
    let _committed = log.committed("g", &[place]);
    let mut next = start;
    for _ in 0..100 {
        match log.read(place, next, 8, 1_000) {
            Ok(fetched) => {
                assert!(fetched.records.iter().all(|record| (next..end).contains(&record.offset)), "{place}");
                assert!(fetched.next_offset >= next && fetched.end_offset == end);
                if fetched.next_offset == next {
                    break;
                }
                next = fetched.next_offset;
            }
            Err(LogError::Damaged { offset, .. }) => next = offset + 1,
            Err(error) => {
                assert!(matches!(error, LogError::OffsetOutOfRange { .. }), "{error}");
                break;
            }
        }
    }
    match log.append(vec![record(place, 1)]) {
        Ok(placements) => {
            assert_eq!(placements, [(place.partition, end)]);
            let read = log.read(place, end, 1, 1_000).map(|fetched| fetched.records.len());
            assert_eq!(read, Ok(1), "what was appended cannot be read");
        }
        Err(error) => assert!(matches!(error, LogError::Rejected { .. }), "{error}"),
    }
}
