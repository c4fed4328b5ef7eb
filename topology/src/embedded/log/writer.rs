//! The one writer of the log: gives out offsets, writes a group of commits at once, and shows it to readers when it is
//! durable. The same code runs in the committer's thread and, in memory, in the caller's.

use std::collections::VecDeque;

use bytes::Bytes;
use neonhub_schemas::record::Record;
use parking_lot::Mutex;

use super::Shared;
use super::error::LogError;
use super::keys;
use super::store::{Batch, Durability, Space, StoreError};
use super::tail;
use super::time_index::Planned;
use super::unit::{Appended, PreparedUnit};

#[derive(Default)]
pub struct Writer {
    state: Mutex<WriterState>,
}

#[derive(Default)]
struct WriterState {
    /// Why nothing more may be written until the log is opened anew.
    broken: Option<String>,
    /// What the tail caches hold, oldest first: partition, end offset, bytes.
    cached: VecDeque<(usize, u64, usize)>,
    cached_bytes: usize,
}

/// What a group of commits adds to one partition.
struct Addition {
    next: u64,
    records: Vec<Record>,
    times: Planned,
}

impl Writer {
    /// Why nothing more may be written, if so.
    pub fn broken(&self) -> Option<String> {
        self.state.lock().broken.clone()
    }

    /// Writes all units with one disk write and returns the result of each.
    pub fn commit(&self, shared: &Shared, units: Vec<PreparedUnit>) -> Vec<Result<Appended, LogError>> {
        let mut state = self.state.lock();
        if let Some(detail) = &state.broken {
            return units.iter().map(|_| Err(LogError::ReopenNeeded { detail: detail.clone() })).collect();
        }
        // Held until the write is durable, so that a fence is checked and used in one step.
        let groups = shared.groups.read();
        let mut additions: Vec<Option<Addition>> = Vec::new();
        additions.resize_with(shared.partitions.len(), || None);
        let mut batch = Batch::with_capacity(units.iter().map(|unit| unit.records.len() + unit.offsets.len()).sum());
        let mut results = Vec::with_capacity(units.len());
        for unit in units {
            if let Some(fence) = unit.fence.as_ref().filter(|fence| !groups.admits(fence)) {
                let (group, member_id) = (fence.group.clone(), fence.member_id.clone());
                results.push(Err(LogError::Fenced { group, member_id }));
                continue;
            }
            results.push(Ok(add_unit(shared, unit, &mut additions, &mut batch)));
        }
        if batch.operations.is_empty() {
            return results;
        }
        add_next_offsets(shared, &additions, &mut batch);
        if let Err(error) = shared.store.write(batch, Durability::Synced) {
            if let StoreError::WriteFailed(detail) = &error {
                state.broken = Some(detail.clone());
            }
            let error = LogError::from(error);
            return results.into_iter().map(|result| result.and(Err(error.clone()))).collect();
        }
        drop(groups);
        for (index, addition) in additions.into_iter().enumerate() {
            if let Some(addition) = addition {
                publish(shared, &mut state, index, addition);
            }
        }
        evict_beyond_limit(shared, &mut state);
        drop(state);
        shared.signal.notify();
        results
    }

    /// Deletions: atomic, in order with all other writes, and not waited for, because losing them does no harm.
    pub fn write_maintenance(&self, shared: &Shared, batch: Batch) -> Result<(), LogError> {
        let mut state = self.state.lock();
        if let Some(detail) = &state.broken {
            return Err(LogError::ReopenNeeded { detail: detail.clone() });
        }
        shared.store.write(batch, Durability::Buffered).map_err(|error| {
            if let StoreError::WriteFailed(detail) = &error {
                state.broken = Some(detail.clone());
            }
            error.into()
        })
    }
}

fn add_unit(shared: &Shared, unit: PreparedUnit, additions: &mut [Option<Addition>], batch: &mut Batch) -> Appended {
    let mut placements = Vec::with_capacity(unit.records.len());
    for prepared in unit.records {
        let partition = shared.partitions.at(prepared.partition_index);
        let addition = additions[prepared.partition_index].get_or_insert_with(|| {
            let visible = partition.visible.read();
            Addition { next: visible.end, records: Vec::new(), times: visible.times.plan() }
        });
        let mut record = prepared.record;
        record.offset = addition.next;
        addition.next += 1;
        addition.times.note(record.offset, record.timestamp_ms);
        placements.push((record.partition, record.offset));
        batch.put(Space::Records(partition.place), keys::record(record.offset), prepared.encoded);
        addition.records.push(record);
    }
    for (place, committed) in &unit.offsets {
        batch.put(Space::Meta, keys::group_offset(&unit.group, *place), keys::encode_committed(committed));
    }
    Appended { placements }
}

fn add_next_offsets(shared: &Shared, additions: &[Option<Addition>], batch: &mut Batch) {
    for (index, addition) in additions.iter().enumerate() {
        let Some(addition) = addition else { continue };
        let place = shared.partitions.at(index).place;
        batch.put(Space::Meta, keys::next_offset(place), number(addition.next));
        for block in &addition.times.closed {
            let newest = Bytes::copy_from_slice(&block.newest_ms.to_be_bytes());
            batch.put(Space::Meta, keys::time_block(place, block.number), newest);
        }
    }
}

pub fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

fn publish(shared: &Shared, state: &mut WriterState, index: usize, addition: Addition) {
    let bytes = addition.records.iter().map(tail::weight).sum();
    let mut visible = shared.partitions.at(index).visible.write();
    for record in addition.records {
        visible.tail.push(record);
    }
    visible.times.apply(addition.times);
    visible.end = addition.next;
    drop(visible);
    state.cached.push_back((index, addition.next, bytes));
    state.cached_bytes += bytes;
}

fn evict_beyond_limit(shared: &Shared, state: &mut WriterState) {
    while state.cached_bytes > shared.options.tail_cache_bytes {
        let Some((index, end, bytes)) = state.cached.pop_front() else { return };
        shared.partitions.at(index).visible.write().tail.evict_before(end);
        state.cached_bytes -= bytes;
    }
}
