//! Deletes what is older than the topic's retention, in whole blocks of the time index, oldest first.

use std::collections::HashMap;

use neonhub_schemas::record::TopicPartition;

use super::Shared;
use super::error::LogError;
use super::keys;
use super::maintenance::Maintained;
use super::partition::Partition;
use super::store::{Batch, Space};
use super::writer::number;

/// Deletions of one batch.
const BATCH: u64 = 1_000;

/// Up to where each partition's deleted records are gone from the store.
#[derive(Default)]
pub struct Trimmed(HashMap<TopicPartition, u64>);

/// Says whether the partition is done for this round. The start offset moves first and is stored with the first
/// deletions: after a crash the rest is found below it and deleted then.
pub fn step(
    shared: &Shared,
    partition: &Partition,
    trimmed: &mut Trimmed,
    cutoff_ms: i64,
    budget: &mut usize,
    maintained: &mut Maintained,
) -> Result<bool, LogError> {
    let place = partition.place;
    let (start, forgotten_blocks) = {
        let mut visible = partition.visible.write();
        visible.start = visible.times.expired_to(cutoff_ms, visible.start, visible.end);
        let start = visible.start;
        visible.tail.evict_before(start);
        (start, visible.times.forget_before(start))
    };
    let mut at = match trimmed.0.get(&place) {
        Some(at) => *at,
        None => first_offset(shared, place)?.unwrap_or(start).min(start),
    };
    let mut batch = Batch::default();
    for block in forgotten_blocks {
        batch.delete(Space::Meta, keys::time_block(place, block));
    }
    while at < start && *budget > 0 {
        let until = start.min(at + BATCH.min(*budget as u64));
        batch.put(Space::Meta, keys::start_offset(place), number(start));
        for offset in at..until {
            batch.delete(Space::Records(place), keys::record(offset));
        }
        shared.writer.write_maintenance(shared, std::mem::take(&mut batch))?;
        maintained.deleted_records += until - at;
        *budget -= usize::try_from(until - at).unwrap_or(*budget).min(*budget);
        at = until;
    }
    trimmed.0.insert(place, at);
    Ok(at >= start)
}

fn first_offset(shared: &Shared, place: TopicPartition) -> Result<Option<u64>, LogError> {
    Ok(shared.store.first_key(Space::Records(place))?.and_then(|key| keys::offset_of(&key)))
}
