//! Refine in a worker with a local state and next to no memory: whatever waits on the disk, and whenever the worker is made
//! anew, here or on another machine, each message comes out once, with the user and the session that a recount gives it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use neonhub_processors::engine::{
    Change, EngineError, EngineMetrics, MemoryStates, Ports, SourceEvent, StateStore, StateStores, Worker, WorkerConfig,
};
use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::codec::header;
use neonhub_schemas::event::{Envelope, Kind};
use neonhub_schemas::ids;
use neonhub_schemas::record::{Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use crate::fake_ports::FakePorts;

const PLACE: TopicPartition = TopicPartition { topic: Topic::RawBehavior, partition: 0 };
const OUTPUT: TopicPartition = TopicPartition { topic: Topic::EventsBehavior, partition: 0 };
const CHANGELOG: TopicPartition = TopicPartition { topic: Topic::RefineChangelog, partition: 0 };
const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");
const BEGIN_MS: i64 = 1_774_000_800_000;
const MINUTE_MS: i64 = 60_000;
const BUDGET: usize = 2_000;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A disk whose next write fails, before or after it was done.
#[derive(Clone, Default)]
struct Disk {
    states: MemoryStates,
    fails: Arc<AtomicU8>,
}

const BEFORE: u8 = 1;
const AFTER: u8 = 2;

impl StateStores for Disk {
    fn open(&mut self, stage: &'static str, partition: TopicPartition) -> Result<Box<dyn StateStore>, EngineError> {
        Ok(Box::new(DiskState { inner: self.states.open(stage, partition)?, fails: Arc::clone(&self.fails) }))
    }
}

struct DiskState {
    inner: Box<dyn StateStore>,
    fails: Arc<AtomicU8>,
}

impl StateStore for DiskState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        self.inner.scan(from, to, each)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let fails = self.fails.swap(0, Ordering::Relaxed);
        if fails != BEFORE {
            self.inner.write(changes)?;
        }
        if fails == 0 { Ok(()) } else { Err(EngineError::Unavailable("the disk fails".to_owned())) }
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.inner.clear()
    }
}

struct Bench {
    fake: FakePorts,
    now: Arc<AtomicI64>,
    metrics: EngineMetrics,
    config: RefineConfig,
    worker: Option<Worker<Refine>>,
}

impl Bench {
    fn new(memory_per_partition: usize, save_interval: Duration) -> Self {
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        let config = RefineConfig { memory_per_partition, save_interval, ..RefineConfig::default() };
        let now = Arc::new(AtomicI64::new(BEGIN_MS));
        Self { fake: FakePorts::default(), now, metrics, config, worker: None }
    }

    /// A new worker: takes up what the disk has and reads the input again from the committed offset on.
    fn restart(&mut self, disk: &Disk) {
        let ports = Ports { states: Some(Box::new(disk.clone())), ..self.fake.ports() };
        let now = Arc::clone(&self.now);
        let clock = Arc::new(move || now.load(Ordering::Relaxed));
        let (stage, config) = (Refine::new(self.config), WorkerConfig::default());
        self.fake.world().polls.clear();
        self.fake.world().reads.clear();
        self.worker = Some(Worker::new(stage, ports, clock, config, self.metrics.clone()).unwrap());
        self.step(vec![SourceEvent::Assigned(vec![PLACE])]).unwrap();
        let from = self.fake.world().committed.get(&PLACE).map_or(0, |committed| committed.offset);
        let again = self.input().split_off(usize::try_from(from).unwrap());
        self.step(vec![SourceEvent::Records(again)]).unwrap();
    }

    fn input(&self) -> Vec<Record> {
        self.fake.world().logs.get(&PLACE).cloned().unwrap_or_default()
    }

    fn feed(&mut self, event: &Envelope<'_>) -> Result<(), EngineError> {
        let new = event.to_raw_record();
        let fed = Record {
            topic: PLACE.topic,
            partition: 0,
            offset: self.input().len() as u64,
            timestamp_ms: new.timestamp_ms,
            key: new.key,
            value: new.value,
            headers: new.headers,
        };
        self.fake.world().logs.entry(PLACE).or_default().push(fed.clone());
        self.step(vec![SourceEvent::Records(vec![fed])])
    }

    fn step(&mut self, events: Vec<SourceEvent>) -> Result<(), EngineError> {
        self.fake.says(events);
        let worker = self.worker.as_mut().unwrap();
        // Records are committed when they pause.
        worker.step().and_then(|_| worker.step()).map(drop)
    }

    fn in_memory(&self) -> (usize, usize) {
        self.worker.as_ref().unwrap().state_size()
    }

    /// Message id, user and session of each event that came out.
    fn refined(&self) -> Vec<(String, Option<String>, String)> {
        let outputs = self.fake.world().logs.get(&OUTPUT).cloned().unwrap_or_default();
        let events = outputs.iter().filter(|record| record.headers.get(header::TYPE).is_none());
        let owned = |text: &Cow<'_, str>| text.clone().into_owned();
        events
            .map(|record| {
                let event = Envelope::decode(record.value.as_ref().unwrap()).unwrap();
                (owned(&event.message_id), event.user_id.as_ref().map(owned), owned(event.session_id.as_ref().unwrap()))
            })
            .collect()
    }
}

fn event<'a>(person: u64, message_id: &'a str, received_ms: i64, user_id: Option<&'a str>) -> Envelope<'a> {
    let mut event = Envelope::decode(TRACK.as_bytes()).unwrap();
    event.anonymous_id = Some(Cow::Owned(format!("anon-{person}")));
    event.message_id = Cow::Borrowed(message_id);
    event.user_id = user_id.map(Cow::Borrowed);
    event.kind = if user_id.is_some() { Kind::Identify } else { Kind::Track };
    (event.timestamp_ms, event.received_at_ms) = (received_ms, received_ms);
    event
}

/// What comes out, by the rules alone.
#[derive(Default)]
struct Recount {
    received: HashMap<(u64, String), i64>,
    users: HashMap<u64, String>,
    /// Id, and when its last event was.
    sessions: HashMap<u64, (String, i64)>,
    refined: Vec<(String, Option<String>, String)>,
}

impl Recount {
    fn take(&mut self, person: u64, event: &Envelope<'_>) {
        let (message_id, at_ms) = (event.message_id.clone().into_owned(), event.received_at_ms);
        let message = (person, message_id.clone());
        if self.received.get(&message).is_some_and(|known| at_ms - known <= 60 * MINUTE_MS) {
            return;
        }
        self.received.insert(message, at_ms);
        if let Some(user_id) = &event.user_id {
            self.users.insert(person, user_id.clone().into_owned());
        }
        let session = self.sessions.entry(person).or_insert((String::new(), i64::MIN / 2));
        if at_ms - session.1 > 30 * MINUTE_MS {
            session.0 = ids::session_id(&event.workspace, event.actor(), &message_id);
        }
        session.1 = at_ms;
        let user_id = self.users.get(&person).cloned();
        self.refined.push((message_id, user_id, session.0.clone()));
    }
}

fn play(seed: u64) -> (usize, usize) {
    let mut dice = Dice(seed);
    let mut bench = Bench::new(BUDGET, Duration::from_secs(60));
    let disks = [Disk::default(), Disk::default()];
    let mut here = &disks[0];
    let mut recount = Recount::default();
    let mut posted: Vec<(u64, String, i64)> = Vec::new();
    let (mut restarts, mut most_bytes) = (0, 0);
    bench.restart(here);
    for turn in 0..1_500 {
        let mut later_ms = i64::try_from(dice.below(30_000)).unwrap();
        if dice.below(300) == 0 {
            later_ms += i64::try_from(dice.below(150)).unwrap() * MINUTE_MS;
        }
        let now_ms = bench.now.fetch_add(later_ms, Ordering::Relaxed) + later_ms;
        let again = if posted.is_empty() || dice.below(4) > 0 {
            None
        } else {
            // The seen-set's buckets are coarse: a little beyond the window either is right.
            let (person, message_id, at_ms) = &posted[usize::try_from(dice.below(posted.len() as u64)).unwrap()];
            let is_clear = !(60 * MINUTE_MS..=68 * MINUTE_MS).contains(&(now_ms - at_ms));
            is_clear.then(|| (*person, message_id.clone()))
        };
        let is_retry = again.is_some();
        let (person, message_id) = again.unwrap_or_else(|| (dice.below(60), format!("m-{turn}")));
        let user_id = format!("user-{}", dice.below(30));
        let user_id = Some(user_id.as_str()).filter(|_| !is_retry && dice.below(5) == 0);
        let event = event(person, &message_id, now_ms, user_id);
        let count = recount.refined.len();
        recount.take(person, &event);
        if recount.refined.len() > count {
            posted.retain(|(_, id, _)| *id != message_id);
            posted.push((person, message_id.clone(), now_ms));
        }
        here.fails.store(
            *[0, 0, 0, 0, 0, BEFORE, AFTER].get(usize::try_from(dice.below(60)).unwrap()).unwrap_or(&0),
            Ordering::Relaxed,
        );
        let outcome = bench.feed(&event);
        disks.iter().for_each(|disk| disk.fails.store(0, Ordering::Relaxed));
        if outcome.is_err() || dice.below(40) == 0 {
            // On another machine now and then: its disk has what it had when the partition was there last.
            here = if dice.below(3) == 0 { &disks[usize::try_from(dice.below(2)).unwrap()] } else { here };
            bench.restart(here);
            restarts += 1;
        }
        most_bytes = most_bytes.max(bench.in_memory().1);
    }
    let (found, expected) = (bench.refined(), recount.refined);
    let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    assert_eq!(differs, None, "seed {seed}: {:?}", differs.map(|at| (&found[at], &expected[at])));
    assert_eq!(found.len(), expected.len(), "seed {seed}");
    // The list of runs comes beside it.
    assert!((BUDGET / 2..BUDGET + 1_000).contains(&most_bytes), "seed {seed}: {most_bytes} bytes");
    (restarts, most_bytes)
}

#[test]
fn each_message_comes_out_once_as_in_a_recount_with_next_to_no_memory() {
    for seed in 1..=8 {
        let (restarts, most_bytes) = play(seed);
        println!("seed {seed}: {restarts} restarts, at most {most_bytes} bytes in memory");
        assert!(restarts > 20, "seed {seed}: {restarts}");
    }
}

#[test]
fn a_restart_reads_no_more_than_came_after_the_last_save() {
    let mut bench = Bench::new(1 << 20, Duration::from_secs(10));
    let disk = Disk::default();
    bench.restart(&disk);
    let feed = |bench: &mut Bench, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let at_ms = bench.now.fetch_add(100, Ordering::Relaxed);
            let user_id = format!("user-{number}");
            bench.feed(&event(number, &format!("m-{number}"), at_ms, Some(&user_id))).unwrap();
        }
    };
    feed(&mut bench, 0..250);
    // Saved with the first event, and after ten and twenty seconds: before the commits of the 1st, 101st and 201st.
    bench.restart(&disk);
    assert_eq!(bench.fake.world().reads, [(OUTPUT, 200, 250), (CHANGELOG, 200, 250)]);
    feed(&mut bench, 250..260);
    // Idle: what the marker of the last save lay before is saved as well.
    bench.now.fetch_add(20_000, Ordering::Relaxed);
    bench.step(Vec::new()).unwrap();
    bench.now.fetch_add(20_000, Ordering::Relaxed);
    bench.step(Vec::new()).unwrap();
    let entries = bench.in_memory().0;
    bench.restart(&disk);
    assert_eq!(bench.fake.world().reads, []);
    assert_eq!((bench.in_memory().0, entries), (3 * 260, 3 * 260), "messages, sessions and links");
    // Another machine reads all of it, within the window.
    bench.restart(&Disk::default());
    assert_eq!(bench.fake.world().reads, [(OUTPUT, 0, 260), (CHANGELOG, 0, 260)]);
    assert_eq!(bench.in_memory().0, 3 * 260);
    assert_eq!(bench.refined().len(), 260);
}

#[test]
fn another_dedup_window_begins_with_an_empty_local_state() {
    let mut bench = Bench::new(1 << 20, Duration::ZERO);
    let disk = Disk::default();
    bench.restart(&disk);
    bench.feed(&event(1, "m-1", BEGIN_MS, None)).unwrap();
    bench.config.dedup_window = Duration::from_secs(7_200);
    let ports = Ports { states: Some(Box::new(disk.clone())), ..bench.fake.ports() };
    let clock = Arc::new(|| BEGIN_MS);
    let stage = Refine::new(bench.config);
    let mut refused = Worker::new(stage, ports, clock, WorkerConfig::default(), bench.metrics.clone()).unwrap();
    bench.fake.says(vec![SourceEvent::Assigned(vec![PLACE])]);
    assert!(refused.step().is_err(), "its buckets are of another length");
    bench.restart(&disk);
    assert_eq!(bench.fake.world().reads, [(OUTPUT, 0, 1)]);
    bench.feed(&event(1, "m-1", BEGIN_MS + 100 * MINUTE_MS, None)).unwrap();
    assert_eq!(bench.refined().len(), 1, "still within the longer window");
}
