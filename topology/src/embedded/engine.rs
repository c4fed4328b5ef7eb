//! The engine's ports on the embedded log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use neonhub_processors::engine::{CommitUnit, Committer, EngineError, LogReader, Part, Ports, Source, SourceEvent};
use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::Tracer;

use super::log::{self, Log, LogError, Membership};

/// At most so many records and bytes a poll.
const POLL_RECORDS: usize = 10_000;
const POLL_BYTES: usize = 16 * 1024 * 1024;

/// Source, committer and reader of one worker. `slot` names it within its group.
#[must_use]
pub fn ports(log: &Log, group: &str, slot: &str, topics: &[Topic], part: Part) -> Ports {
    let membership = Arc::new(log.join(group, slot, topics));
    // No generation is this one: nothing can be committed before the first assignment.
    let generation = Arc::new(AtomicU64::new(u64::MAX));
    Ports {
        source: Box::new(LogSource {
            log: log.clone(),
            part,
            membership: Arc::clone(&membership),
            generation: Arc::clone(&generation),
            assigned: BTreeSet::new(),
            positions: BTreeMap::new(),
            delivering: BTreeSet::new(),
            said_end: BTreeSet::new(),
            turn: 0,
        }),
        committer: Box::new(LogCommitter { log: log.clone(), membership, generation }),
        reader: Box::new(EmbeddedReader { log: log.clone() }),
        states: None,
        tracer: Tracer::default(),
    }
}

fn classify(error: LogError) -> EngineError {
    match error {
        LogError::Fenced { .. } => EngineError::Fenced(error.to_string()),
        LogError::Damaged { .. } | LogError::ForeignFormat { .. } | LogError::PartitionCountChanged { .. } => {
            EngineError::Fatal(error.to_string())
        }
        other => EngineError::Unavailable(other.to_string()),
    }
}

struct LogSource {
    log: Log,
    part: Part,
    membership: Arc<Membership>,
    generation: Arc<AtomicU64>,
    assigned: BTreeSet<TopicPartition>,
    positions: BTreeMap<TopicPartition, u64>,
    /// Partitions that may deliver.
    delivering: BTreeSet<TopicPartition>,
    said_end: BTreeSet<TopicPartition>,
    /// Which partition is read first; they take turns.
    turn: usize,
}

impl LogSource {
    fn rebalance(&mut self) -> Result<Vec<SourceEvent>, EngineError> {
        let assignment = self.membership.poll_assignment().map_err(classify)?;
        let known_generation = self.generation.load(Ordering::Acquire);
        if known_generation == assignment.generation {
            return Ok(Vec::new());
        }
        let now: BTreeSet<TopicPartition> = assignment.partitions.into_iter().collect();
        // A partition that we hold in this generation and held in the one before was ours all the time. When we slept
        // through a generation, another may have had it, worked on it and left again: all we know of it is out of date.
        let slept = known_generation.checked_add(1).is_some_and(|next| next != assignment.generation);
        let kept: BTreeSet<TopicPartition> =
            if slept { BTreeSet::new() } else { self.assigned.intersection(&now).copied().collect() };
        let revoked: Vec<TopicPartition> = self.assigned.difference(&kept).copied().collect();
        let added: Vec<TopicPartition> = now.difference(&kept).copied().collect();
        for place in &revoked {
            self.positions.remove(place);
            self.delivering.remove(place);
            self.said_end.remove(place);
        }
        self.assigned = now;
        self.generation.store(assignment.generation, Ordering::Release);
        let mut events = Vec::new();
        if !revoked.is_empty() {
            events.push(SourceEvent::Revoked(revoked));
        }
        if !added.is_empty() {
            events.push(SourceEvent::Assigned(added));
        }
        Ok(events)
    }

    fn fetch(&mut self) -> Result<Vec<Record>, EngineError> {
        let order: Vec<TopicPartition> = self.delivering.iter().copied().collect();
        let mut records = Vec::new();
        let mut bytes = 0;
        for index in 0..order.len() {
            let place = order[(self.turn + index) % order.len()];
            let from = self.positions.get(&place).copied().unwrap_or(0);
            let fetched = match self.log.read(place, from, POLL_RECORDS - records.len(), POLL_BYTES - bytes) {
                Ok(fetched) => fetched,
                // Retention took what we had not read: go on with what is there.
                Err(LogError::OffsetOutOfRange { start, .. }) if start > from => {
                    tracing::error!(%place, from, start, "records were deleted before they were read");
                    self.positions.insert(place, start);
                    continue;
                }
                Err(error) => return Err(classify(error)),
            };
            if fetched.next_offset != from {
                self.positions.insert(place, fetched.next_offset);
                self.said_end.remove(&place);
            }
            bytes += fetched.records.iter().map(Record::size).sum::<usize>();
            records.extend(fetched.records);
            if records.len() >= POLL_RECORDS || bytes >= POLL_BYTES {
                break;
            }
        }
        self.turn = self.turn.wrapping_add(1);
        if self.part != Part::Whole {
            records.iter_mut().for_each(|record| record.headers = record.headers.only(|name| self.part.wants(name)));
        }
        Ok(records)
    }

    /// Partitions that have nothing more, said once.
    fn ends(&mut self) -> Result<Vec<SourceEvent>, EngineError> {
        let mut events = Vec::new();
        for place in &self.delivering {
            let position = self.positions.get(place).copied().unwrap_or(0);
            if !self.said_end.contains(place) && position >= self.log.end_offset(*place).map_err(classify)? {
                self.said_end.insert(*place);
                events.push(SourceEvent::AtEnd(*place));
            }
        }
        Ok(events)
    }
}

impl Source for LogSource {
    fn poll(&mut self, wait: Duration) -> Result<Vec<SourceEvent>, EngineError> {
        let mut events = self.rebalance()?;
        if !events.is_empty() {
            return Ok(events);
        }
        let mut records = self.fetch()?;
        if records.is_empty() {
            events = self.ends()?;
            if events.is_empty() && !wait.is_zero() {
                let waiting: Vec<(TopicPartition, u64)> = self
                    .delivering
                    .iter()
                    .map(|place| (*place, self.positions.get(place).copied().unwrap_or(0)))
                    .collect();
                if self.log.wait_for_data(&waiting, wait) {
                    records = self.fetch()?;
                }
            }
        }
        if !records.is_empty() {
            events.push(SourceEvent::Records(records));
        }
        Ok(events)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, EngineError> {
        let committed = self.log.committed(self.membership.group(), partitions).map_err(classify)?;
        for (place, committed) in partitions.iter().zip(&committed) {
            let start = self.log.start_offset(*place).map_err(classify)?;
            self.positions.insert(*place, committed.as_ref().map_or(start, |committed| committed.offset));
        }
        Ok(committed)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.delivering.extend(partitions.iter().filter(|place| self.assigned.contains(place)));
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        for place in partitions {
            self.delivering.remove(place);
        }
        Ok(())
    }

    fn lag(&mut self) -> Vec<(TopicPartition, u64)> {
        let lag = |(place, position): (&TopicPartition, &u64)| {
            let end = self.log.end_offset(*place).unwrap_or(*position);
            (*place, end.saturating_sub(*position))
        };
        self.positions.iter().map(lag).collect()
    }
}

struct LogCommitter {
    log: Log,
    membership: Arc<Membership>,
    generation: Arc<AtomicU64>,
}

impl Committer for LogCommitter {
    fn commit(&mut self, unit: CommitUnit) -> Result<(), EngineError> {
        let unit = log::CommitUnit {
            records: unit.records,
            offsets: unit.offsets,
            group: self.membership.group().to_owned(),
            fence: Some(self.membership.fence(self.generation.load(Ordering::Acquire))),
        };
        self.log.commit(unit).map(drop).map_err(classify)
    }
}

struct EmbeddedReader {
    log: Log,
}

impl LogReader for EmbeddedReader {
    fn bounds(&mut self, place: TopicPartition) -> Result<(u64, u64), EngineError> {
        let start = self.log.start_offset(place).map_err(classify)?;
        Ok((start, self.log.end_offset(place).map_err(classify)?))
    }

    fn offset_for_time(&mut self, place: TopicPartition, timestamp_ms: i64) -> Result<u64, EngineError> {
        match self.log.offset_for_time(place, timestamp_ms).map_err(classify)? {
            Some(offset) => Ok(offset),
            None => self.log.end_offset(place).map_err(classify),
        }
    }

    fn read(
        &mut self,
        place: TopicPartition,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        let mut next = from;
        while next < to {
            let fetched = match self.log.read(place, next, POLL_RECORDS, POLL_BYTES) {
                Ok(fetched) => fetched,
                Err(LogError::OffsetOutOfRange { start, .. }) if start > next => {
                    next = start;
                    continue;
                }
                Err(error) => return Err(classify(error)),
            };
            if fetched.next_offset <= next {
                break;
            }
            fetched.records.into_iter().filter(|record| record.offset < to).for_each(&mut *each);
            next = fetched.next_offset;
        }
        Ok(())
    }
}
