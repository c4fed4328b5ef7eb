//! Promises broken on purpose, without a line in production code: if the checks did not notice, they would prove nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use neonhub_processors::engine::{
    Change, CommitUnit, Committer, EngineError, LogReader, Ports, Source, SourceEvent, StateStore, StateStores,
};
use neonhub_schemas::codec::header;
use neonhub_schemas::record::{CommittedOffset, Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use serde_json::Value;

use super::faults::{SharedFaults, lost};
use crate::embedded::log::Log;

macro_rules! breaks {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// One promise that is not kept.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
        pub enum Break {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Break {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

breaks! {
    /// Outputs are committed without their offsets.
    OffsetsForgotten,
    /// Offsets first, outputs in a commit of their own, and sometimes a crash between the two.
    OffsetsBeforeOutputs,
    /// Outputs first, offsets in a commit of their own, and sometimes a crash between the two.
    OutputsBeforeOffsets,
    /// A commit goes through without its last output.
    OutputLost,
    /// An output says no more which trace it goes on in.
    TraceLost,
    /// A commit writes its outputs twice.
    OutputsTwice,
    /// A commit writes its outputs in reverse.
    OutputsReversed,
    /// Who was fenced writes all the same.
    ZombieNotFenced,
    /// The committed offset comes back one too low.
    CommittedTooLow,
    /// The committed offset comes back one too high.
    CommittedTooHigh,
    /// The source delivers a record twice, under two offsets.
    Redelivery,
    /// The source passes over a record.
    RecordSkipped,
    /// The seen-set of refine is not restored.
    DedupNotRestored,
    /// The sessions of refine are not restored.
    SessionsNotRestored,
    /// The open windows of the merge stage are not restored.
    WindowsNotRestored,
    /// Nobody follows the definitions.
    ControlNotFollowed,
    /// Partials carry the watermark of the fastest partition.
    WatermarkOfTheFastest,
    /// Upserts keep the revision 1.
    RevisionNotRaised,
    /// Every epoch of a window has the same id.
    EpochReused,
    /// The landing inserts without having written its plan.
    PlanNotWritten,
    /// Tokens name the partition but not the range.
    TokenWithoutRange,
    /// The tables insert again what they had under the same token.
    TokensIgnored,
    /// An insert is answered as done and is not.
    RowsNotStored,
    /// A batch is taken for landed while it is being inserted.
    LandedTooEarly,
    /// A post is answered with 200 before the log has it.
    AcknowledgedTooEarly,
    /// The local state says that it holds more of its changelog than it does.
    MarkerTooFar,
    /// The local state is written in part, marker included.
    StateTorn,
    /// A local state that is of no use is not emptied.
    StateNotCleared,
    /// The local state loses what was left to it.
    SpilledWindowsLost,
    /// The local state of refine is written in part, marker included, and that of nobody else.
    RefineStateTorn,
    /// A page of message ids that were left to the local state is empty.
    SpilledIdsLost,
    /// After a restart other ids are read than were saved, into memory and into the filters of what was left on the disk.
    SavedIdsMisread,
    /// A link that was left to the local state is not found.
    SpilledLinksLost,
    /// After a restart refine does not read its own output on from where the local state ends.
    OutputTailNotRead,
}

pub fn wrap(ports: Ports, log: &Log, faults: &SharedFaults) -> Ports {
    let Ports { source, committer, reader, states, tracer } = ports;
    Ports {
        source: Box::new(BrokenSource { inner: source, faults: faults.clone() }),
        committer: Box::new(BrokenCommitter {
            inner: committer,
            log: log.clone(),
            faults: faults.clone(),
            fastest: None,
        }),
        reader: Box::new(BrokenReader { inner: reader, faults: faults.clone(), by_time: BTreeMap::new() }),
        states: states.map(|inner| Box::new(BrokenStates { inner, faults: faults.clone() }) as Box<dyn StateStores>),
        tracer,
    }
}

struct BrokenStates {
    inner: Box<dyn StateStores>,
    faults: SharedFaults,
}

impl StateStores for BrokenStates {
    fn open(&mut self, stage: &'static str, partition: TopicPartition) -> Result<Box<dyn StateStore>, EngineError> {
        let inner = self.inner.open(stage, partition)?;
        Ok(Box::new(BrokenState { inner, stage, faults: self.faults.clone() }))
    }
}

struct BrokenState {
    inner: Box<dyn StateStore>,
    stage: &'static str,
    faults: SharedFaults,
}

/// The key of the marker, and what other keys begin with.
const MARKER: &[u8] = &[0];
const WINDOW: u8 = 1;
const PAGE: u8 = 1;
const LINK: u8 = 3;

impl StateStore for BrokenState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let found = self.inner.get(key)?;
        let faults = &mut *self.faults.lock();
        Ok(match (self.stage, key[0]) {
            ("metrics.merge", WINDOW) if faults.breaks(Break::SpilledWindowsLost, 100) => None,
            ("refine", LINK) if faults.breaks(Break::SpilledLinksLost, 500) => None,
            ("refine", PAGE) if faults.breaks(Break::SpilledIdsLost, 500) => found.map(|_| Vec::new()),
            _ => found,
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        let misreads =
            self.stage == "refine" && from[0] == PAGE && self.faults.lock().breaks(Break::SavedIdsMisread, 500);
        if !misreads {
            return self.inner.scan(from, to, each);
        }
        self.inner.scan(from, to, &mut |key, page| each(key, &page.iter().map(|byte| !byte).collect::<Vec<u8>>()))
    }

    fn write(&self, mut changes: Vec<Change>) -> Result<(), EngineError> {
        let (is_torn, is_too_far) = {
            let faults = &mut *self.faults.lock();
            let is_torn = faults.breaks(Break::StateTorn, 200)
                || self.stage == "refine" && faults.breaks(Break::RefineStateTorn, 200);
            (is_torn, faults.breaks(Break::MarkerTooFar, 200))
        };
        if is_torn {
            let mut is_first = true;
            changes.retain(|(key, _)| key == MARKER || std::mem::take(&mut is_first));
        }
        if is_too_far && let Some((_, Some(marker))) = changes.iter_mut().find(|(key, _)| key == MARKER) {
            let mut json: Value = serde_json::from_slice(marker).unwrap_or_default();
            let places = json["changelogs"].as_array_mut().into_iter().flatten();
            places.for_each(|place| place[2] = Value::from(place[2].as_u64().unwrap_or_default() + 3));
            *marker = json.to_string().into_bytes();
        }
        self.inner.write(changes)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.inner.flush()
    }

    fn clear(&self) -> Result<(), EngineError> {
        let is_forgotten = self.faults.lock().breaks(Break::StateNotCleared, 1_000);
        if is_forgotten { Ok(()) } else { self.inner.clear() }
    }
}

struct BrokenSource {
    inner: Box<dyn Source>,
    faults: SharedFaults,
}

impl Source for BrokenSource {
    fn poll(&mut self, wait: Duration) -> Result<Vec<SourceEvent>, EngineError> {
        let mut events = self.inner.poll(wait)?;
        let faults = &mut *self.faults.lock();
        for event in &mut events {
            let SourceEvent::Records(records) = event else { continue };
            if faults.breaks(Break::Redelivery, 20)
                && let Some(last) = records.last().cloned()
            {
                records.push(Record { offset: last.offset + 1, ..last });
            }
            if faults.breaks(Break::RecordSkipped, 20) {
                records.pop();
            }
        }
        Ok(events)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, EngineError> {
        let mut found = self.inner.committed(partitions)?;
        let faults = &mut *self.faults.lock();
        for committed in found.iter_mut().flatten() {
            if faults.breaks(Break::CommittedTooLow, 300) {
                committed.offset = committed.offset.saturating_sub(1);
            }
            if faults.breaks(Break::CommittedTooHigh, 300) {
                committed.offset += 1;
            }
        }
        Ok(found)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.inner.resume(partitions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.inner.pause(partitions)
    }
}

struct BrokenReader {
    inner: Box<dyn LogReader>,
    faults: SharedFaults,
    /// Where reading by time would begin.
    by_time: BTreeMap<TopicPartition, u64>,
}

impl LogReader for BrokenReader {
    fn bounds(&mut self, partition: TopicPartition) -> Result<(u64, u64), EngineError> {
        let is_blind = partition.topic == Topic::Control && self.faults.lock().breaks(Break::ControlNotFollowed, 1_000);
        if is_blind { Ok((0, 0)) } else { self.inner.bounds(partition) }
    }

    fn offset_for_time(&mut self, partition: TopicPartition, timestamp_ms: i64) -> Result<u64, EngineError> {
        let offset = self.inner.offset_for_time(partition, timestamp_ms)?;
        self.by_time.insert(partition, offset);
        Ok(offset)
    }

    fn read(
        &mut self,
        partition: TopicPartition,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        // A local state makes it begin later than the time would.
        let is_tail = self.by_time.get(&partition).is_some_and(|by_time| from > *by_time);
        let forgets = match partition.topic {
            Topic::EventsBehavior | Topic::EventsCampaign | Topic::EventsIntegration => {
                Some(if is_tail { Break::OutputTailNotRead } else { Break::DedupNotRestored })
            }
            Topic::MetricsWindows => Some(Break::WindowsNotRestored),
            _ => None,
        };
        if forgets.is_some_and(|forgets| self.faults.lock().breaks(forgets, 1_000)) {
            return Ok(());
        }
        if partition.topic == Topic::EventsBehavior && self.faults.lock().breaks(Break::SessionsNotRestored, 1_000) {
            let without_session = |headers: &Headers| {
                let others = headers.iter().filter(|(name, _)| *name != header::SESSION);
                others.fold(Headers::new(), |others, (name, value)| others.with(name, value.clone()))
            };
            let each = &mut |record: Record| each(Record { headers: without_session(&record.headers), ..record });
            return self.inner.read(partition, from, to, each);
        }
        self.inner.read(partition, from, to, each)
    }
}

struct BrokenCommitter {
    inner: Box<dyn Committer>,
    log: Log,
    faults: SharedFaults,
    fastest: Option<i64>,
}

impl Committer for BrokenCommitter {
    fn commit(&mut self, mut unit: CommitUnit) -> Result<(), EngineError> {
        let (broken, now) = {
            let faults = &mut *self.faults.lock();
            (faults.broken, faults.rng.chance(30))
        };
        match broken {
            Some(Break::OffsetsForgotten) if now => unit.offsets.clear(),
            Some(Break::OutputLost) if now => drop(unit.records.pop()),
            Some(Break::TraceLost) if now => unit.records.iter_mut().for_each(|record| {
                record.headers = record.headers.only(|name| name != header::TRACE_PARENT);
            }),
            Some(Break::OutputsTwice) if now => unit.records.extend(unit.records.clone()),
            Some(Break::OutputsReversed) => unit.records.reverse(),
            Some(Break::PlanNotWritten) => unit.offsets.iter_mut().for_each(|(_, committed)| {
                if committed.metadata.starts_with("to=") {
                    committed.metadata.clear();
                }
            }),
            Some(Break::WatermarkOfTheFastest) => self.use_fastest(&mut unit.records),
            Some(Break::RevisionNotRaised) => edit(&mut unit.records, Topic::MetricsWindows, |_, upsert| {
                upsert["revision"] = Value::from(1);
            }),
            Some(Break::EpochReused) => edit(&mut unit.records, Topic::MetricsWindows, |key, upsert| {
                upsert["epoch"] = Value::from("0-0");
                if let Some((window, _)) = key.rsplit_once('|') {
                    *key = format!("{window}|0-0");
                }
            }),
            Some(Break::ZombieNotFenced) => {
                let records = unit.records.clone();
                return match self.inner.commit(unit) {
                    Err(EngineError::Fenced(_)) => self.log.append(records).map(drop).map_err(|_| lost()),
                    other => other,
                };
            }
            Some(Break::OffsetsBeforeOutputs | Break::OutputsBeforeOffsets) => {
                let offsets = CommitUnit { offsets: std::mem::take(&mut unit.offsets), records: Vec::new() };
                let is_first = broken == Some(Break::OffsetsBeforeOutputs);
                let (first, second) = if is_first { (offsets, unit) } else { (unit, offsets) };
                self.inner.commit(first)?;
                return if now { Err(lost()) } else { self.inner.commit(second) };
            }
            _ => {}
        }
        self.inner.commit(unit)
    }
}

impl BrokenCommitter {
    fn use_fastest(&mut self, records: &mut [NewRecord]) {
        edit(records, Topic::MetricsPartials, |_, partial| {
            let own = partial["upstream"]["watermark_ms"].as_i64();
            self.fastest = self.fastest.max(own);
            if let Some(fastest) = self.fastest {
                partial["upstream"]["watermark_ms"] = Value::from(fastest);
            }
        });
    }
}

/// Changes key and JSON value of the records of a topic.
fn edit(records: &mut [NewRecord], topic: Topic, mut change: impl FnMut(&mut String, &mut Value)) {
    for record in records.iter_mut().filter(|record| record.topic == topic) {
        let mut key = String::from_utf8_lossy(&record.key).into_owned();
        let mut json = record.value.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        change(&mut key, &mut json);
        record.key = Bytes::from(key);
        if record.value.is_some() {
            record.value = Some(Bytes::from(json.to_string()));
        }
    }
}
