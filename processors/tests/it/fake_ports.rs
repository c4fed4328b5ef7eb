//! Ports over a log in memory: what a source will say next, what is committed, and what was asked of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use neonhub_processors::engine::{CommitUnit, Committer, EngineError, LogReader, Ports, Source, SourceEvent};
use neonhub_schemas::record::{CommittedOffset, Headers, Record, TopicPartition};
use neonhub_schemas::trace::Tracer;

#[derive(Default)]
pub struct World {
    /// One for each poll; nothing when they are used up.
    pub polls: VecDeque<Vec<SourceEvent>>,
    pub waits: Vec<Duration>,
    pub committed: BTreeMap<TopicPartition, CommittedOffset>,
    pub units: Vec<CommitUnit>,
    pub logs: BTreeMap<TopicPartition, Vec<Record>>,
    /// First offset there is, where it is not 0.
    pub starts: BTreeMap<TopicPartition, u64>,
    pub resumed: Vec<TopicPartition>,
    pub paused: Vec<TopicPartition>,
    pub lag: Vec<(TopicPartition, u64)>,
    /// Ranges that were read, empty ones left out.
    pub reads: Vec<(TopicPartition, u64, u64)>,
}

#[derive(Clone, Default)]
pub struct FakePorts(Arc<Mutex<World>>);

/// Values of a unit's records, and its offsets.
pub type TakenUnit = (Vec<String>, Vec<(TopicPartition, u64)>);

impl FakePorts {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub fn ports(&self) -> Ports {
        Ports {
            source: Box::new(self.clone()),
            committer: Box::new(self.clone()),
            reader: Box::new(self.clone()),
            states: None,
            tracer: Tracer::default(),
        }
    }

    /// The next poll says this.
    pub fn says(&self, events: Vec<SourceEvent>) {
        self.world().polls.push_back(events);
    }

    /// What the units committed since the last call hold: for each, its record keys and its offsets.
    pub fn take_units(&self) -> Vec<TakenUnit> {
        let units = std::mem::take(&mut self.world().units);
        let text = |key: &Bytes| String::from_utf8(key.to_vec()).unwrap();
        units
            .iter()
            .map(|unit| {
                let keys = unit.records.iter().map(|record| text(&record.key)).collect();
                (keys, unit.offsets.iter().map(|(place, committed)| (*place, committed.offset)).collect())
            })
            .collect()
    }
}

impl Source for FakePorts {
    fn poll(&mut self, wait: Duration) -> Result<Vec<SourceEvent>, EngineError> {
        let mut world = self.world();
        world.waits.push(wait);
        Ok(world.polls.pop_front().unwrap_or_default())
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, EngineError> {
        let world = self.world();
        Ok(partitions.iter().map(|place| world.committed.get(place).cloned()).collect())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.world().resumed.extend_from_slice(partitions);
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.world().paused.extend_from_slice(partitions);
        Ok(())
    }

    fn lag(&mut self) -> Vec<(TopicPartition, u64)> {
        self.world().lag.clone()
    }
}

impl Committer for FakePorts {
    fn commit(&mut self, unit: CommitUnit) -> Result<(), EngineError> {
        let mut world = self.world();
        world.committed.extend(unit.offsets.iter().cloned());
        for new in &unit.records {
            let place = TopicPartition { topic: new.topic, partition: new.partition.unwrap_or(0) };
            let log = world.logs.entry(place).or_default();
            let offset = log.last().map_or(0, |last| last.offset + 1);
            let new = new.clone();
            let (key, value, headers) = (new.key, new.value, new.headers);
            log.push(Record { key, value, headers, timestamp_ms: new.timestamp_ms, ..record(place, offset, "") });
        }
        world.units.push(unit);
        Ok(())
    }
}

impl LogReader for FakePorts {
    fn bounds(&mut self, place: TopicPartition) -> Result<(u64, u64), EngineError> {
        let world = self.world();
        let start = world.starts.get(&place).copied().unwrap_or(0);
        let end = world.logs.get(&place).and_then(|log| log.last()).map_or(start, |last| last.offset + 1);
        Ok((start, end))
    }

    fn offset_for_time(&mut self, place: TopicPartition, timestamp_ms: i64) -> Result<u64, EngineError> {
        let world = self.world();
        let log = world.logs.get(&place).map_or(&[][..], Vec::as_slice);
        Ok(log.iter().find(|record| record.timestamp_ms >= timestamp_ms).map_or(u64::MAX, |record| record.offset))
    }

    fn read(
        &mut self,
        place: TopicPartition,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        if from < to {
            self.world().reads.push((place, from, to));
        }
        let log = self.world().logs.get(&place).cloned().unwrap_or_default();
        log.into_iter().filter(|record| (from..to).contains(&record.offset)).for_each(each);
        Ok(())
    }
}

/// A record whose timestamp is its offset.
pub fn record(place: TopicPartition, offset: u64, value: &str) -> Record {
    Record {
        topic: place.topic,
        partition: place.partition,
        offset,
        timestamp_ms: i64::try_from(offset).unwrap(),
        key: Bytes::from_static(b"key"),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Headers::new(),
    }
}
