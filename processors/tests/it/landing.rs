use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neonhub_processors::engine::{
    CommitUnit, Committer, EngineError, EngineMetrics, LogReader, Ports, Source, SourceEvent,
};
use neonhub_processors::landing::{
    BatchLimits, Block, InlineInserter, InsertError, Landing, LandingConfig, Table as TableName, Tables,
};
use neonhub_schemas::event::Envelope;
use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::Tracer;

const PLACE: TopicPartition = TopicPartition { topic: Topic::EventsBehavior, partition: 0 };
const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");

/// The log: records, and what the group committed, one after the other.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogState>>);

#[derive(Default)]
struct LogState {
    records: Vec<Record>,
    commits: Vec<CommittedOffset>,
}

struct Reader {
    log: Log,
    next: Option<usize>,
    assigned: bool,
}

impl Source for Reader {
    fn poll(&mut self, _wait: Duration) -> Result<Vec<SourceEvent>, EngineError> {
        if !self.assigned {
            self.assigned = true;
            return Ok(vec![SourceEvent::Assigned(vec![PLACE])]);
        }
        let state = self.log.0.lock().unwrap();
        let Some(next) = self.next else { return Ok(Vec::new()) };
        self.next = Some(state.records.len());
        Ok(vec![SourceEvent::Records(state.records[next..].to_vec())])
    }

    fn committed(&mut self, _partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, EngineError> {
        Ok(vec![self.log.0.lock().unwrap().commits.last().cloned()])
    }

    fn resume(&mut self, _partitions: &[TopicPartition]) -> Result<(), EngineError> {
        let committed = self.log.0.lock().unwrap().commits.last().map_or(0, |committed| committed.offset);
        self.next.get_or_insert(usize::try_from(committed).unwrap());
        Ok(())
    }

    fn pause(&mut self, _partitions: &[TopicPartition]) -> Result<(), EngineError> {
        Ok(())
    }
}

impl Committer for Log {
    fn commit(&mut self, unit: CommitUnit) -> Result<(), EngineError> {
        self.0.lock().unwrap().commits.extend(unit.offsets.into_iter().map(|(_, committed)| committed));
        Ok(())
    }
}

struct NoReader;

impl LogReader for NoReader {
    fn bounds(&mut self, _place: TopicPartition) -> Result<(u64, u64), EngineError> {
        Ok((0, 1_000))
    }

    fn offset_for_time(&mut self, _place: TopicPartition, _timestamp_ms: i64) -> Result<u64, EngineError> {
        Ok(0)
    }

    fn read(
        &mut self,
        _place: TopicPartition,
        _from: u64,
        _to: u64,
        _each: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        Ok(())
    }
}

/// What the next insert does.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The rows arrive, the answer does not.
    AnswerLost,
    /// The server dies between remembering the token and keeping the rows.
    TokenWithoutRows,
    /// Nothing arrives.
    Away,
}

#[derive(Clone, Default)]
struct Table(Arc<Mutex<TableState>>);

#[derive(Default)]
struct TableState {
    offsets: Vec<u64>,
    tokens: BTreeSet<String>,
    faults: Vec<Fault>,
    refused: HashSet<u64>,
    dead: usize,
}

impl Tables for Table {
    fn insert(&mut self, rows: &Block, token: &str) -> Result<(), InsertError> {
        let mut state = self.0.lock().unwrap();
        if rows.table != TableName::Events {
            state.dead += rows.len();
            return Ok(());
        }
        if rows.offsets().any(|offset| state.refused.contains(&offset)) {
            return Err(InsertError::Data("Code: 117".to_owned()));
        }
        let fault = if state.faults.is_empty() { Fault::None } else { state.faults.remove(0) };
        if fault == Fault::Away {
            return Err(InsertError::Transient("away".to_owned()));
        }
        if state.tokens.insert(token.to_owned()) && fault != Fault::TokenWithoutRows {
            state.offsets.extend(rows.offsets());
        }
        if fault == Fault::None { Ok(()) } else { Err(InsertError::Transient("answer lost".to_owned())) }
    }

    fn landed_offsets(&mut self, _rows: &Block) -> Result<Option<BTreeSet<u64>>, InsertError> {
        Ok(Some(self.0.lock().unwrap().offsets.iter().copied().collect()))
    }
}

fn log_of(events: u64) -> Log {
    let log = Log::default();
    for offset in 0..events {
        let text = TRACK.replace("m-1", &format!("m-{offset}"));
        let raw = Envelope::decode(text.as_bytes()).unwrap().to_raw_record();
        log.0.lock().unwrap().records.push(Record {
            topic: PLACE.topic,
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
        });
    }
    log
}

fn landing(log: &Log, table: &Table, now: &Arc<AtomicI64>) -> Landing {
    let now = Arc::clone(now);
    let ports = Ports {
        source: Box::new(Reader { log: log.clone(), next: None, assigned: false }),
        committer: Box::new(log.clone()),
        reader: Box::new(NoReader),
        states: None,
        tracer: Tracer::default(),
    };
    let limits = BatchLimits { max_rows: 4, ..LandingConfig::default().limits };
    let config = LandingConfig { limits, ..LandingConfig::default() };
    let inserter = Box::new(InlineInserter::new(Box::new(table.clone())));
    let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
    Landing::new(ports, inserter, Arc::new(move || now.load(Ordering::Relaxed)), config, metrics)
}

fn step_until_landed(landing: &mut Landing, now: &AtomicI64) {
    for _ in 0..60 {
        now.fetch_add(500, Ordering::Relaxed);
        landing.step().unwrap();
    }
}

fn counts(table: &Table) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    table.0.lock().unwrap().offsets.iter().for_each(|offset| *counts.entry(*offset).or_default() += 1);
    counts
}

/// Every combination of three faults, with a crash after each number of steps: each event is there once.
#[test]
fn every_event_lands_once_whatever_an_insert_does_and_whenever_the_process_dies() {
    let faults = [Fault::None, Fault::AnswerLost, Fault::TokenWithoutRows, Fault::Away];
    for combination in 0..64 {
        for crash_after in 1..8 {
            let chosen = [combination % 4, combination / 4 % 4, combination / 16].map(|index| faults[index]);
            let (log, table, now) = (log_of(10), Table::default(), Arc::new(AtomicI64::new(0)));
            table.0.lock().unwrap().faults = chosen.to_vec();
            let mut first = landing(&log, &table, &now);
            for _ in 0..crash_after {
                now.fetch_add(300, Ordering::Relaxed);
                first.step().unwrap();
            }
            drop(first);
            step_until_landed(&mut landing(&log, &table, &now), &now);
            let counts = counts(&table);
            let exact = counts.len() == 10 && counts.values().all(|count| *count == 1);
            assert!(exact, "combination {combination}, crash after {crash_after}: {counts:?}");
            assert_eq!(log.0.lock().unwrap().commits.last().unwrap().offset, 10);
        }
    }
}

#[test]
fn the_plan_is_written_before_the_insert() {
    let (log, table, now) = (log_of(3), Table::default(), Arc::new(AtomicI64::new(0)));
    table.0.lock().unwrap().faults = vec![Fault::Away];
    let mut landing = landing(&log, &table, &now);
    for _ in 0..3 {
        now.fetch_add(300, Ordering::Relaxed);
        landing.step().unwrap();
    }
    let commits = log.0.lock().unwrap().commits.clone();
    assert_eq!((commits[0].offset, commits[0].metadata.as_str()), (0, "to=3"));
    assert!(table.0.lock().unwrap().tokens.is_empty());
    step_until_landed(&mut landing, &now);
    let tokens: Vec<String> = table.0.lock().unwrap().tokens.iter().cloned().collect();
    assert_eq!(tokens, ["events.behavior:0:0-3"]);
}

#[test]
fn a_row_that_clickhouse_refuses_is_set_aside_and_the_others_land() {
    let (log, table, now) = (log_of(8), Table::default(), Arc::new(AtomicI64::new(0)));
    table.0.lock().unwrap().refused.extend([2, 5]);
    step_until_landed(&mut landing(&log, &table, &now), &now);
    assert_eq!(counts(&table).keys().copied().collect::<Vec<_>>(), [0, 1, 3, 4, 6, 7]);
    assert_eq!(table.0.lock().unwrap().dead, 2);
}
