//! Reading: from memory what is recent, else from the store.

use std::ops::ControlFlow;

use neonhub_schemas::record::{Record, TopicPartition};

use super::Shared;
use super::encoding;
use super::error::LogError;
use super::keys;
use super::partition::Partition;
use super::store::Space;

/// A stretch of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// In the order of offsets; compacted-away offsets are skipped.
    pub records: Vec<Record>,
    /// Where to read on: may be past the last record where records were compacted away.
    pub next_offset: u64,
    /// The partition's end when it was read.
    pub end_offset: u64,
}

/// Collects until a bound is reached; the first record is always taken.
struct Collected {
    records: Vec<Record>,
    bytes: usize,
    max_records: usize,
    max_bytes: usize,
    is_full: bool,
}

impl Collected {
    fn has_room_for(&mut self, record: &Record) -> bool {
        let over = self.records.len() >= self.max_records || self.bytes + record.size() > self.max_bytes;
        self.is_full = over && !self.records.is_empty();
        !self.is_full
    }

    fn add(&mut self, record: Record) {
        self.bytes += record.size();
        self.records.push(record);
    }
}

pub fn read(
    shared: &Shared,
    place: TopicPartition,
    from: u64,
    max_records: usize,
    max_bytes: usize,
) -> Result<Fetched, LogError> {
    let partition = shared.partitions.get(place)?;
    let mut collected = Collected { records: Vec::new(), bytes: 0, max_records, max_bytes, is_full: false };
    let end = {
        let visible = partition.visible.read();
        if from < visible.start || from > visible.end {
            return Err(out_of_range(place, from, visible.start, visible.end));
        }
        if visible.tail.covers(from) {
            let available = usize::try_from(visible.end - from).unwrap_or(usize::MAX);
            collected.records.reserve_exact(available.min(max_records).min(1_024));
            for record in visible.tail.records_from(from) {
                if !collected.has_room_for(record) {
                    break;
                }
                collected.add(record.clone());
            }
            return Ok(fetched(collected, visible.end));
        }
        visible.end
    };
    read_store(shared, partition, from, end, &mut collected)?;
    // Retention may have deleted under the scan; a jump in the offsets must not look like compaction.
    let start = partition.visible.read().start;
    if start > from {
        return Err(out_of_range(place, from, start, end));
    }
    Ok(fetched(collected, end))
}

fn read_store(
    shared: &Shared,
    partition: &Partition,
    from: u64,
    end: u64,
    collected: &mut Collected,
) -> Result<(), LogError> {
    let place = partition.place;
    let mut damaged = None;
    let mut next = from;
    let scanned =
        shared.store.scan(Space::Records(place), &from.to_be_bytes(), &end.to_be_bytes(), &mut |key, value| {
            let offset = keys::offset_of(key).unwrap_or(from);
            next = offset + 1;
            match encoding::decode(place, offset, &value) {
                Ok(record) if collected.has_room_for(&record) => {
                    collected.add(record);
                    ControlFlow::Continue(())
                }
                Ok(_) => ControlFlow::Break(()),
                Err(detail) => {
                    damaged = Some(LogError::Damaged { topic_partition: place, offset, detail });
                    ControlFlow::Break(())
                }
            }
        });
    scanned.map_err(|error| match LogError::from(error) {
        LogError::ReadFailed { detail } => LogError::ReadFailed { detail: format!("{place} from {next} on: {detail}") },
        other => other,
    })?;
    match damaged {
        // The records before the damage are good: hand them out; the next read starts at the damage and reports it.
        Some(_) if !collected.records.is_empty() => {
            collected.is_full = true;
            Ok(())
        }
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn fetched(collected: Collected, end_offset: u64) -> Fetched {
    let next_offset = match collected.records.last() {
        Some(last) if collected.is_full => last.offset + 1,
        _ => end_offset,
    };
    Fetched { records: collected.records, next_offset, end_offset }
}

fn out_of_range(topic_partition: TopicPartition, offset: u64, start: u64, end: u64) -> LogError {
    LogError::OffsetOutOfRange { topic_partition, offset, start, end }
}

/// The earliest offset whose timestamp is at or after `timestamp_ms`, as in Kafka's `offsetsForTimes`.
pub fn offset_for_time(shared: &Shared, place: TopicPartition, timestamp_ms: i64) -> Result<Option<u64>, LogError> {
    let partition = shared.partitions.get(place)?;
    let (start, end, blocks) = {
        let visible = partition.visible.read();
        (visible.start, visible.end, visible.times.candidates(visible.start, timestamp_ms))
    };
    for block in blocks {
        let (from, until) = (block.first_offset().max(start), block.end_offset().min(end));
        let mut found = None;
        let range = (from.to_be_bytes(), until.to_be_bytes());
        shared.store.scan(Space::Records(place), &range.0, &range.1, &mut |key, value| {
            let offset = keys::offset_of(key).unwrap_or(from);
            // A damaged record has no time; reading reports it.
            if encoding::decode(place, offset, &value).is_ok_and(|record| record.timestamp_ms >= timestamp_ms) {
                found = Some(offset);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
