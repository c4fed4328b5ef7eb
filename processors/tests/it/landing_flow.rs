//! The landing's cycle by itself: when it asks, waits, pauses and goes on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use neonhub_processors::engine::{EngineError, EngineMetrics, SourceEvent};
use neonhub_processors::landing::{
    BatchLimits, Block, InlineInserter, InsertError, Landing, LandingConfig, PartitionBuffer, Tables,
};
use neonhub_schemas::event::Envelope;
use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use crate::fake_ports::{FakePorts, record};

const PLACE: TopicPartition = TopicPartition { topic: Topic::EventsBehavior, partition: 0 };
const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");

#[derive(Default)]
struct Calls {
    /// Token and number of rows.
    inserts: Vec<(String, usize)>,
    asked: usize,
    /// Failures to come, then everything succeeds.
    away: usize,
    /// Answers to come about which offsets are there; then all of them are.
    landed: VecDeque<Vec<u64>>,
}

#[derive(Clone, Default)]
struct Table(Arc<Mutex<Calls>>);

impl Table {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap()
    }
}

impl Tables for Table {
    fn insert(&mut self, rows: &Block, token: &str) -> Result<(), InsertError> {
        let mut calls = self.calls();
        calls.inserts.push((token.to_owned(), rows.len()));
        if calls.away == 0 {
            return Ok(());
        }
        calls.away -= 1;
        Err(InsertError::Transient("away".to_owned()))
    }

    fn landed_offsets(&mut self, _rows: &Block) -> Result<Option<BTreeSet<u64>>, InsertError> {
        let mut calls = self.calls();
        calls.asked += 1;
        let known = calls.landed.pop_front();
        Ok(Some(known.map_or_else(|| (0..1_000).collect(), |offsets| offsets.into_iter().collect())))
    }
}

/// Tables that cannot tell what they hold.
struct Blind(Table);

impl Tables for Blind {
    fn insert(&mut self, rows: &Block, token: &str) -> Result<(), InsertError> {
        self.0.insert(rows, token)
    }
}

struct Bench {
    landing: Landing,
    fake: FakePorts,
    now: Arc<AtomicI64>,
    metrics: EngineMetrics,
}

impl Bench {
    fn with(fake: FakePorts, tables: Box<dyn Tables>, config: LandingConfig) -> Self {
        let now = Arc::new(AtomicI64::new(1_000_000));
        let clock = Arc::clone(&now);
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        let inserter = Box::new(InlineInserter::new(tables));
        let landing = Landing::new(fake.ports(), inserter, clock, config, metrics.clone());
        Self { landing, fake, now, metrics }
    }

    /// Lands each record at once, at most `max_rows` a batch.
    fn open(table: &Table, max_rows: usize, pause_bytes: usize) -> Self {
        let config = LandingConfig { limits: limits(max_rows), pause_bytes, ..LandingConfig::default() };
        let mut bench = Self::with(FakePorts::default(), Box::new(table.clone()), config);
        bench.step(vec![SourceEvent::Assigned(vec![PLACE])]);
        bench.fake.world().resumed.clear();
        bench
    }

    /// Two turns: what the first begins to insert, the second commits.
    fn step(&mut self, events: Vec<SourceEvent>) -> usize {
        self.fake.says(events);
        self.landing.step().unwrap() + self.landing.step().unwrap()
    }

    fn later(&mut self, milliseconds: i64) -> usize {
        self.now.fetch_add(milliseconds, Ordering::Relaxed);
        self.step(Vec::new())
    }
}

fn limits(max_rows: usize) -> BatchLimits {
    BatchLimits { max_rows, max_bytes: usize::MAX }
}

fn event(offset: u64) -> Record {
    let raw = Envelope::decode(TRACK.as_bytes()).unwrap().to_raw_record();
    Record { key: raw.key, value: raw.value, headers: raw.headers, ..record(PLACE, offset, "") }
}

fn events(offsets: std::ops::Range<u64>) -> Vec<SourceEvent> {
    vec![SourceEvent::Records(offsets.map(event).collect())]
}

#[test]
fn a_step_says_how_many_rows_it_landed() {
    let table = Table::default();
    let mut bench = Bench::open(&table, 8, usize::MAX);
    assert_eq!(bench.step(events(0..17)), 8);
    assert_eq!(bench.later(0), 8);
    assert_eq!(bench.later(0), 0, "the last one waits for others: it is less than a quarter of a batch");
    assert_eq!(bench.later(400), 1);
    assert_eq!(bench.fake.world().committed[&PLACE].offset, 17);
}

#[test]
fn the_table_is_asked_what_it_holds_only_after_a_batch_was_repeated() {
    let table = Table::default();
    let mut bench = Bench::open(&table, 2, usize::MAX);
    bench.step(events(0..2));
    assert_eq!(table.calls().inserts.len(), 1);
    assert_eq!(table.calls().asked, 0);
    table.calls().away = 1;
    bench.step(events(2..4));
    assert_eq!(bench.later(200), 2);
    let token = "events.behavior:0:2-4".to_owned();
    assert_eq!(table.calls().inserts[1..], [(token.clone(), 2), (token, 2)]);
    assert_eq!(table.calls().asked, 1);
    bench.step(events(4..6));
    assert_eq!(table.calls().asked, 1, "the next batch is a first attempt again");
}

#[test]
fn what_is_missing_after_a_repeat_is_inserted_under_a_token_of_its_own() {
    let table = Table::default();
    let mut bench = Bench::open(&table, 3, usize::MAX);
    table.calls().away = 1;
    table.calls().landed = [vec![0], vec![0, 2]].into();
    bench.step(events(0..3));
    assert_eq!(bench.later(200), 3);
    let token = |suffix: &str| format!("events.behavior:0:0-3{suffix}");
    assert_eq!(table.calls().inserts[2..], [(token(":missing-0"), 2), (token(":missing-1"), 1)]);
    assert_eq!(table.calls().asked, 3);
}

#[test]
fn tables_that_cannot_tell_what_they_hold_are_believed() {
    let table = Table::default();
    let config = LandingConfig { limits: limits(2), ..LandingConfig::default() };
    let mut bench = Bench::with(FakePorts::default(), Box::new(Blind(table.clone())), config);
    bench.step(vec![SourceEvent::Assigned(vec![PLACE])]);
    table.calls().away = 1;
    bench.step(events(0..2));
    assert_eq!(bench.later(200), 2);
    assert_eq!(table.calls().inserts.len(), 2);
}

#[test]
fn each_failure_doubles_the_wait_up_to_five_seconds() {
    let table = Table::default();
    let mut bench = Bench::open(&table, 1, usize::MAX);
    table.calls().away = 8;
    bench.step(events(0..1));
    for (attempts, wait_ms) in [200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000].into_iter().enumerate() {
        bench.later(wait_ms - 1);
        assert_eq!(table.calls().inserts.len(), attempts + 1, "{wait_ms} ms are not over");
        bench.later(1);
        assert_eq!(table.calls().inserts.len(), attempts + 2, "{wait_ms} ms are over");
    }
    assert_eq!(bench.metrics.landing_failures.get(), 8);
    assert_eq!(bench.fake.world().committed[&PLACE].offset, 1);
    assert_eq!(bench.metrics.landed_rows.with_label_values(&["events"]).get(), 1);
}

#[test]
fn a_partition_is_paused_when_much_waits_and_resumed_when_less_than_half_does() {
    let table = Table::default();
    let mut one = PartitionBuffer::open(PLACE, None, limits(1));
    one.push(&event(0), 0);
    let size = one.bytes();
    let mut bench = Bench::open(&table, 1, 4 * size);
    table.calls().away = 1;
    bench.step(events(0..3));
    assert_eq!(bench.fake.world().paused, []);
    bench.step(events(3..4));
    assert_eq!(bench.fake.world().paused, [PLACE]);
    bench.step(events(4..5));
    assert_eq!(bench.fake.world().paused, [PLACE], "once is enough");
    bench.now.fetch_add(200, Ordering::Relaxed);
    let mut landed = 0;
    while bench.fake.world().resumed.is_empty() && landed < 5 {
        landed += bench.landing.step().unwrap();
    }
    assert_eq!(landed, 4, "then less than two of the four that pause it are left");
    bench.later(200);
    assert_eq!(bench.fake.world().resumed, [PLACE]);
    // And again.
    table.calls().away = 1;
    bench.step(events(5..9));
    assert_eq!(bench.fake.world().paused, [PLACE, PLACE]);
}

#[test]
fn a_place_beyond_the_end_of_the_log_stops_the_landing() {
    for (committed, is_fatal) in [(0, false), (1, false), (2, true)] {
        let fake = FakePorts::default();
        fake.world().logs.insert(PLACE, vec![event(0)]);
        fake.world().committed.insert(PLACE, CommittedOffset { offset: committed, metadata: String::new() });
        let mut bench = Bench::with(fake, Box::new(Table::default()), LandingConfig::default());
        bench.fake.says(vec![SourceEvent::Assigned(vec![PLACE])]);
        assert_eq!(matches!(bench.landing.step(), Err(EngineError::Fatal(_))), is_fatal, "committed {committed}");
    }
}

#[test]
fn records_of_several_partitions_that_come_together_are_told_apart() {
    let config = LandingConfig { limits: limits(1), ..LandingConfig::default() };
    let mut bench = Bench::with(FakePorts::default(), Box::new(Table::default()), config);
    let second = TopicPartition { partition: 1, ..PLACE };
    bench.step(vec![SourceEvent::Assigned(vec![PLACE, second])]);
    let records = [PLACE, second, PLACE].into_iter().zip([0, 0, 1]);
    let records = records.map(|(place, offset)| Record { partition: place.partition, ..event(offset) }).collect();
    bench.step(vec![SourceEvent::Records(records)]);
    for _ in 0..3 {
        bench.later(0);
    }
    let world = bench.fake.world();
    assert_eq!([PLACE, second].map(|place| world.committed[&place].offset), [2, 1]);
}

#[test]
fn it_has_partitions_while_the_group_leaves_them_to_it() {
    let mut bench = Bench::with(FakePorts::default(), Box::new(Table::default()), LandingConfig::default());
    assert!(!bench.landing.has_partitions());
    bench.step(vec![SourceEvent::Assigned(vec![PLACE])]);
    assert!(bench.landing.has_partitions());
    bench.step(vec![SourceEvent::Revoked(vec![PLACE])]);
    assert!(!bench.landing.has_partitions());
}

#[test]
fn a_revoked_partition_is_given_up() {
    let table = Table::default();
    let mut bench = Bench::open(&table, 10, usize::MAX);
    let mut said = events(0..1);
    said.push(SourceEvent::Revoked(vec![PLACE]));
    bench.step(said);
    bench.later(1_000);
    assert_eq!(table.calls().inserts, []);
    bench.fake.says(events(1..2));
    assert!(matches!(bench.landing.step(), Err(EngineError::Fenced(_))));
}

#[test]
fn the_lag_is_shown_every_two_seconds() {
    let mut bench = Bench::open(&Table::default(), 10, usize::MAX);
    let lag = bench.metrics.lag.with_label_values(&["landing", "events.behavior", "0"]);
    bench.fake.world().lag = vec![(PLACE, 7)];
    bench.later(1_999);
    assert_eq!(lag.get(), 0);
    bench.later(1);
    assert_eq!(lag.get(), 7);
}

#[test]
fn a_clean_end_commits_what_is_being_inserted() {
    let bench = Bench::open(&Table::default(), 1, usize::MAX);
    let Bench { mut landing, fake, .. } = bench;
    fake.says(events(0..2));
    landing.step().unwrap();
    assert_eq!(fake.world().committed[&PLACE].metadata, "to=1", "the plan");
    landing.finish().unwrap();
    assert_eq!(fake.world().committed[&PLACE].offset, 1);
}
