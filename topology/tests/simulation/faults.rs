//! What goes wrong: a committer whose answers get lost, a source that hands records over in small pieces, and the
//! deliberate breaks that the checks must catch.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neonhub_processors::engine::{CommitUnit, Committer, EngineError, Ports, Source, SourceEvent};
use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};

use crate::rng::Rng;

/// A break of the promises that the processors are built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// Outputs are committed without their offsets.
    OffsetsForgotten,
    /// Offsets first, outputs in a commit of their own, and sometimes a crash between the two.
    OffsetsBeforeOutputs,
    /// Outputs first, offsets in a commit of their own, and sometimes a crash between the two.
    OutputsBeforeOffsets,
    /// The tables insert again what they had under the same token.
    TokensIgnored,
    /// The source delivers a record twice.
    Redelivery,
    /// The source passes over a record.
    RecordSkipped,
}

/// Shared by all ports of a world.
#[derive(Debug)]
pub struct Faults {
    pub rng: Rng,
    pub sabotage: Sabotage,
    /// Commits that fail, before or after they happened.
    pub commit_per_mille: u64,
    pub insert_per_mille: u64,
}

pub type SharedFaults = Arc<Mutex<Faults>>;

pub fn wrap(ports: Ports, faults: &SharedFaults) -> Ports {
    let Ports { source, committer, reader } = ports;
    Ports {
        source: Box::new(PiecewiseSource {
            inner: source,
            faults: Arc::clone(faults),
            pending: VecDeque::new(),
            ends: BTreeSet::new(),
        }),
        committer: Box::new(UncertainCommitter { inner: committer, faults: Arc::clone(faults) }),
        reader,
    }
}

struct UncertainCommitter {
    inner: Box<dyn Committer>,
    faults: SharedFaults,
}

fn lost() -> EngineError {
    EngineError::Unavailable("the answer was lost".to_owned())
}

impl Committer for UncertainCommitter {
    fn commit(&mut self, mut unit: CommitUnit) -> Result<(), EngineError> {
        let (sabotage, fails, after, breaks) = {
            let faults = &mut *self.faults.lock().unwrap();
            let per_mille = faults.commit_per_mille;
            let fails = faults.rng.chance(per_mille);
            (faults.sabotage, fails, faults.rng.chance(500), faults.rng.chance(30))
        };
        if fails && !after {
            return Err(lost());
        }
        match sabotage {
            Sabotage::OffsetsForgotten if breaks => unit.offsets.clear(),
            Sabotage::OffsetsBeforeOutputs | Sabotage::OutputsBeforeOffsets => {
                let offsets = CommitUnit { offsets: std::mem::take(&mut unit.offsets), records: Vec::new() };
                let (first, second) =
                    if sabotage == Sabotage::OffsetsBeforeOutputs { (offsets, unit) } else { (unit, offsets) };
                self.inner.commit(first)?;
                if breaks {
                    return Err(lost());
                }
                return self.inner.commit(second);
            }
            _ => {}
        }
        self.inner.commit(unit)?;
        if fails { Err(lost()) } else { Ok(()) }
    }
}

struct PiecewiseSource {
    inner: Box<dyn Source>,
    faults: SharedFaults,
    pending: VecDeque<Record>,
    ends: BTreeSet<TopicPartition>,
}

impl Source for PiecewiseSource {
    fn poll(&mut self, _wait: Duration) -> Result<Vec<SourceEvent>, EngineError> {
        let mut events = Vec::new();
        for event in self.inner.poll(Duration::ZERO)? {
            match event {
                SourceEvent::Records(records) => {
                    for record in records {
                        self.ends.remove(&record.topic_partition());
                        self.pending.push_back(record);
                    }
                }
                SourceEvent::AtEnd(place) => {
                    self.ends.insert(place);
                }
                SourceEvent::Revoked(places) => {
                    self.pending.retain(|record| !places.contains(&record.topic_partition()));
                    self.ends.retain(|place| !places.contains(place));
                    events.push(SourceEvent::Revoked(places));
                }
                SourceEvent::Assigned(places) => events.push(SourceEvent::Assigned(places)),
            }
        }
        if !events.is_empty() {
            return Ok(events);
        }
        let faults = &mut *self.faults.lock().unwrap();
        let largest = if faults.commit_per_mille == 0 { 100_000 } else { *faults.rng.pick(&[1, 3, 20, 1_000]) };
        let count = largest.min(self.pending.len());
        let mut records: Vec<Record> = self.pending.drain(..count).collect();
        if !records.is_empty() && faults.rng.chance(20) {
            match faults.sabotage {
                Sabotage::Redelivery => records.push(records[records.len() - 1].clone()),
                Sabotage::RecordSkipped => drop(records.pop()),
                _ => {}
            }
        }
        if !records.is_empty() {
            events.push(SourceEvent::Records(records));
        }
        let pending = &self.pending;
        let reached = |place: &TopicPartition| !pending.iter().any(|record| record.topic_partition() == *place);
        let ended: Vec<TopicPartition> = self.ends.iter().copied().filter(reached).collect();
        for place in ended {
            self.ends.remove(&place);
            events.push(SourceEvent::AtEnd(place));
        }
        Ok(events)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, EngineError> {
        self.inner.committed(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.inner.resume(partitions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.inner.pause(partitions)
    }
}
