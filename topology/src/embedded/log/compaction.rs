//! Keeps the newest record of every key, as Kafka's log cleaner does: first the keys of the part that came since the
//! last time are collected with their newest offsets, then everything from the start is swept in order and what is
//! superseded is deleted. Tombstones go with what they cover. Neither a record younger than the horizon nor the last
//! one of the partition is touched.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use neonhub_schemas::record::{Record, TopicPartition};
use xxhash_rust::xxh3::xxh3_128;

use super::Shared;
use super::encoding;
use super::error::LogError;
use super::keys;
use super::maintenance::Maintained;
use super::partition::Partition;
use super::recovery::stored_number;
use super::store::{Batch, Space};
use super::writer::number;

/// Keys collected at once: bounds the memory to some 32 MB; the rest is compacted in the next round.
const MAX_KEYS: usize = 500_000;
/// Records swept between two writes.
const BATCH: usize = 1_000;

#[derive(Default)]
pub struct Compaction {
    running: Option<Running>,
    /// Where each partition was last compacted to, and how many records were left before that.
    finished: HashMap<TopicPartition, Finished>,
}

#[derive(Clone, Copy, Default)]
struct Finished {
    to: u64,
    kept_records: u64,
}

enum Phase {
    Collecting,
    Sweeping { kept_records: u64 },
}

/// The one partition being compacted.
struct Running {
    phase: Phase,
    at: u64,
    /// Where this compaction ends; while collecting, where it ends at the latest.
    until: u64,
    /// Hash of a key to its newest offset.
    newest: HashMap<u128, u64>,
}

impl Compaction {
    /// Says whether the partition is done for this round.
    pub fn step(
        &mut self,
        shared: &Shared,
        partition: &Partition,
        horizon_ms: i64,
        budget: &mut usize,
        maintained: &mut Maintained,
    ) -> Result<bool, LogError> {
        let finished = self.finished_of(shared, partition.place)?;
        let (start, end) = {
            let visible = partition.visible.read();
            (visible.start, visible.end)
        };
        let least_dirty = shared.options.compaction_min_dirty_records.max(finished.kept_records / 2).max(1);
        let Some(mut running) = self.running.take().or_else(|| Running::begin(finished.to, end, least_dirty)) else {
            return Ok(true);
        };
        if matches!(running.phase, Phase::Collecting) {
            if !running.collect(shared, partition.place, horizon_ms, budget)? {
                self.running = Some(running);
                return Ok(false);
            }
            if running.until < finished.to + least_dirty {
                return Ok(true);
            }
            running.phase = Phase::Sweeping { kept_records: 0 };
            running.at = start;
        }
        while running.at < running.until {
            if *budget == 0 {
                self.running = Some(running);
                return Ok(false);
            }
            running.sweep(shared, partition, budget, maintained)?;
        }
        let kept_records = match running.phase {
            Phase::Sweeping { kept_records } => kept_records,
            Phase::Collecting => 0,
        };
        let mut batch = Batch::default();
        batch.put(Space::Meta, keys::compacted_to(partition.place), number(running.until));
        shared.writer.write_maintenance(shared, batch)?;
        self.finished.insert(partition.place, Finished { to: running.until, kept_records });
        Ok(true)
    }

    fn finished_of(&mut self, shared: &Shared, place: TopicPartition) -> Result<Finished, LogError> {
        if let Some(finished) = self.finished.get(&place) {
            return Ok(*finished);
        }
        let end = shared.partitions.get(place)?.visible.read().end;
        let stored = stored_number(shared.store.as_ref(), &keys::compacted_to(place))?;
        // A place that the log has not come to is damage: compacting again from the start does no harm.
        let to = stored.filter(|to| *to <= end).unwrap_or(0);
        let finished = Finished { to, kept_records: 0 };
        self.finished.insert(place, finished);
        Ok(finished)
    }
}

impl Running {
    fn begin(compacted_to: u64, end: u64, least_dirty: u64) -> Option<Self> {
        let until = end.saturating_sub(1);
        let is_worth_it = until >= compacted_to + least_dirty;
        is_worth_it.then(|| Self { phase: Phase::Collecting, at: compacted_to, until, newest: HashMap::new() })
    }

    /// Says whether all is collected; the first record that is too young ends it.
    fn collect(
        &mut self,
        shared: &Shared,
        place: TopicPartition,
        horizon_ms: i64,
        budget: &mut usize,
    ) -> Result<bool, LogError> {
        while self.at < self.until {
            if *budget == 0 {
                return Ok(false);
            }
            let mut limit = None;
            let newest = &mut self.newest;
            let next = visit(shared, place, self.at, self.until, budget, |offset, record| {
                let Some(record) = record else { return ControlFlow::Continue(()) };
                if record.timestamp_ms > horizon_ms || newest.len() >= MAX_KEYS {
                    limit = Some(offset);
                    return ControlFlow::Break(());
                }
                newest.insert(xxh3_128(&record.key), offset);
                ControlFlow::Continue(())
            })?;
            match limit {
                Some(limit) => self.until = limit,
                None => self.at = next,
            }
        }
        Ok(true)
    }

    fn sweep(
        &mut self,
        shared: &Shared,
        partition: &Partition,
        budget: &mut usize,
        maintained: &mut Maintained,
    ) -> Result<(), LogError> {
        let place = partition.place;
        let mut superseded = HashSet::new();
        let mut kept = 0;
        let newest = &self.newest;
        let mut of_batch = BATCH.min(*budget);
        let granted = of_batch;
        let next = visit(shared, place, self.at, self.until, &mut of_batch, |offset, record| {
            if record.is_some_and(|record| is_superseded(&record, newest)) {
                superseded.insert(offset);
            } else {
                kept += 1;
            }
            ControlFlow::Continue(())
        })?;
        *budget -= granted - of_batch;
        self.at = next;
        if let Phase::Sweeping { kept_records } = &mut self.phase {
            *kept_records += kept;
        }
        if superseded.is_empty() {
            return Ok(());
        }
        let mut offsets: Vec<u64> = superseded.iter().copied().collect();
        // In order: a tombstone must not go before what it covers.
        offsets.sort_unstable();
        let mut batch = Batch::with_capacity(offsets.len());
        for offset in offsets {
            batch.delete(Space::Records(place), keys::record(offset));
        }
        shared.writer.write_maintenance(shared, batch)?;
        partition.visible.write().tail.remove(&superseded);
        maintained.compacted_records += superseded.len() as u64;
        Ok(())
    }
}

fn is_superseded(record: &Record, newest: &HashMap<u128, u64>) -> bool {
    match newest.get(&xxh3_128(&record.key)) {
        Some(newest) => *newest > record.offset || record.value.is_none(),
        None => false,
    }
}

/// Visits at most `budget` records from `at` on and returns where to go on. A damaged record is visited as `None`: it
/// stays where it is, for readers to report.
fn visit(
    shared: &Shared,
    place: TopicPartition,
    at: u64,
    until: u64,
    budget: &mut usize,
    mut see: impl FnMut(u64, Option<Record>) -> ControlFlow<()>,
) -> Result<u64, LogError> {
    let mut next = until;
    shared.store.scan(Space::Records(place), &at.to_be_bytes(), &until.to_be_bytes(), &mut |key, value| {
        let Some(offset) = keys::offset_of(key) else { return ControlFlow::Continue(()) };
        if *budget == 0 {
            next = offset;
            return ControlFlow::Break(());
        }
        *budget -= 1;
        see(offset, encoding::decode(place, offset, &value).ok())
    })?;
    Ok(next)
}
