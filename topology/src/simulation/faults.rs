//! What goes wrong at the ports, by a seed: calls that fail before or after they did their work, records in small pieces,
//! slow partitions, ends that flap.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use neonhub_processors::engine::{
    Change, CommitUnit, Committer, EngineError, LogReader, Ports, Source, SourceEvent, StateStore, StateStores,
};
use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};

use super::breaks::Break;
use super::rng::Rng;

/// How often things go wrong, out of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Commits, before or after they happened.
    pub commits: u64,
    /// Inserts, before or after they happened.
    pub inserts: u64,
    /// Any other call of a port.
    pub calls: u64,
    /// Posts, before or after the log has them.
    pub posts: u64,
}

impl Rates {
    pub const TROUBLE: Self = Self { commits: 30, inserts: 100, calls: 2, posts: 60 };
    pub const NONE: Self = Self { commits: 0, inserts: 0, calls: 0, posts: 0 };
}

/// Shared by all ports of a world.
#[derive(Debug)]
pub struct Faults {
    pub rng: Rng,
    pub rates: Rates,
    /// Delivers nothing for the time being.
    pub slow: Option<TopicPartition>,
    /// What was promised and is not kept, for checks of the checks.
    pub broken: Option<Break>,
}

/// Where in a call the worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

impl Faults {
    pub fn strikes(&mut self, per_mille: u64) -> Option<Moment> {
        if !self.rng.chance(per_mille) {
            return None;
        }
        Some(if self.rng.chance(500) { Moment::After } else { Moment::Before })
    }

    /// Whether this break is on, and shows itself now.
    pub fn breaks(&mut self, this: Break, per_mille: u64) -> bool {
        self.broken == Some(this) && self.rng.chance(per_mille)
    }
}

#[derive(Clone, Debug)]
pub struct SharedFaults(Arc<Mutex<Faults>>);

impl SharedFaults {
    pub fn new(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(faults)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a call of a port, if it is let.
    fn call<T>(&self, work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
        let moment = {
            let mut faults = self.lock();
            let rate = faults.rates.calls;
            faults.strikes(rate)
        };
        match moment {
            Some(Moment::Before) => Err(lost()),
            Some(Moment::After) => work().and_then(|_| Err(lost())),
            None => work(),
        }
    }
}

pub fn lost() -> EngineError {
    EngineError::Unavailable("the answer was lost".to_owned())
}

pub fn wrap(ports: Ports, faults: &SharedFaults) -> Ports {
    let Ports { source, committer, reader, states, tracer } = ports;
    Ports {
        source: Box::new(UnsteadySource {
            inner: source,
            faults: faults.clone(),
            pending: VecDeque::new(),
            ends: BTreeSet::new(),
            told: BTreeSet::new(),
        }),
        committer: Box::new(UncertainCommitter { inner: committer, faults: faults.clone() }),
        reader: Box::new(UncertainReader { inner: reader, faults: faults.clone() }),
        states: states.map(|inner| Box::new(UncertainStates { inner, faults: faults.clone() }) as Box<dyn StateStores>),
        tracer,
    }
}

struct UncertainStates {
    inner: Box<dyn StateStores>,
    faults: SharedFaults,
}

impl StateStores for UncertainStates {
    fn open(&mut self, stage: &'static str, partition: TopicPartition) -> Result<Box<dyn StateStore>, EngineError> {
        let inner = self.faults.call(|| self.inner.open(stage, partition))?;
        Ok(Box::new(UncertainState { inner, faults: self.faults.clone() }))
    }
}

struct UncertainState {
    inner: Box<dyn StateStore>,
    faults: SharedFaults,
}

impl StateStore for UncertainState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.faults.call(|| self.inner.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        self.faults.call(|| self.inner.scan(from, to, each))
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.faults.call(|| self.inner.write(changes))
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.faults.call(|| self.inner.flush())
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.faults.call(|| self.inner.clear())
    }
}

struct UncertainCommitter {
    inner: Box<dyn Committer>,
    faults: SharedFaults,
}

impl Committer for UncertainCommitter {
    fn commit(&mut self, unit: CommitUnit) -> Result<(), EngineError> {
        let moment = {
            let mut faults = self.faults.lock();
            let rate = faults.rates.commits;
            faults.strikes(rate)
        };
        if moment == Some(Moment::Before) {
            return Err(lost());
        }
        self.inner.commit(unit)?;
        if moment.is_some() { Err(lost()) } else { Ok(()) }
    }
}

struct UncertainReader {
    inner: Box<dyn LogReader>,
    faults: SharedFaults,
}

impl LogReader for UncertainReader {
    fn bounds(&mut self, partition: TopicPartition) -> Result<(u64, u64), EngineError> {
        self.faults.call(|| self.inner.bounds(partition))
    }

    fn offset_for_time(&mut self, partition: TopicPartition, timestamp_ms: i64) -> Result<u64, EngineError> {
        self.faults.call(|| self.inner.offset_for_time(partition, timestamp_ms))
    }

    fn read(
        &mut self,
        partition: TopicPartition,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        self.faults.call(|| self.inner.read(partition, from, to, each))
    }
}

struct UnsteadySource {
    inner: Box<dyn Source>,
    faults: SharedFaults,
    pending: VecDeque<Record>,
    /// At their end, once everything pending has been delivered.
    ends: BTreeSet<TopicPartition>,
    /// Told to be at their end, with nothing new since.
    told: BTreeSet<TopicPartition>,
}

impl UnsteadySource {
    fn take_in(&mut self, events: Vec<SourceEvent>) -> Vec<SourceEvent> {
        let mut changes = Vec::new();
        for event in events {
            match event {
                SourceEvent::Records(records) => {
                    for record in records {
                        let place = record.topic_partition();
                        self.ends.remove(&place);
                        self.told.remove(&place);
                        self.pending.push_back(record);
                    }
                }
                SourceEvent::AtEnd(place) => {
                    self.ends.insert(place);
                }
                SourceEvent::Revoked(places) => {
                    self.pending.retain(|record| !places.contains(&record.topic_partition()));
                    self.ends.retain(|place| !places.contains(place));
                    self.told.retain(|place| !places.contains(place));
                    changes.push(SourceEvent::Revoked(places));
                }
                SourceEvent::Assigned(places) => changes.push(SourceEvent::Assigned(places)),
            }
        }
        changes
    }

    fn deliver(&mut self, faults: &mut Faults) -> Vec<Record> {
        let troubled = faults.rates.commits > 0;
        let largest = if troubled { *faults.rng.pick(&[1, 3, 20, 1_000]) } else { usize::MAX };
        let (mut held_back, mut records) = (VecDeque::new(), Vec::new());
        for record in self.pending.drain(..) {
            if records.len() < largest && faults.slow != Some(record.topic_partition()) {
                records.push(record);
            } else {
                held_back.push_back(record);
            }
        }
        self.pending = held_back;
        records
    }

    fn ended(&mut self, faults: &mut Faults) -> Vec<SourceEvent> {
        let pending = &self.pending;
        let is_reached = |place: &TopicPartition| !pending.iter().any(|record| record.topic_partition() == *place);
        let reached: Vec<TopicPartition> = self.ends.iter().copied().filter(is_reached).collect();
        for place in &reached {
            self.ends.remove(place);
        }
        let mut ended: Vec<SourceEvent> = reached.iter().copied().map(SourceEvent::AtEnd).collect();
        if faults.rates.commits > 0 {
            // It flaps: what was told is told again.
            let again = self.told.iter().copied().filter(|_| faults.rng.chance(20));
            ended.extend(again.map(SourceEvent::AtEnd));
        }
        self.told.extend(reached);
        ended
    }
}

impl Source for UnsteadySource {
    fn poll(&mut self, _wait: Duration) -> Result<Vec<SourceEvent>, EngineError> {
        let shared = self.faults.clone();
        let events = match shared.call(|| self.inner.poll(Duration::ZERO)) {
            // It has not heard yet that another has its place: nothing but the fence of its commit stops it.
            Err(EngineError::Fenced(_)) if shared.lock().rng.chance(500) => Vec::new(),
            outcome => outcome?,
        };
        let mut events = self.take_in(events);
        if !events.is_empty() {
            return Ok(events);
        }
        let faults = &mut *shared.lock();
        let records = self.deliver(faults);
        if !records.is_empty() {
            events.push(SourceEvent::Records(records));
        }
        events.extend(self.ended(faults));
        Ok(events)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, EngineError> {
        self.faults.call(|| self.inner.committed(partitions))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.faults.call(|| self.inner.resume(partitions))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.faults.call(|| self.inner.pause(partitions))
    }
}
