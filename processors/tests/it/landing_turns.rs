//! The landing's turns beside inserters that take their time: whom it waits for, and who begins.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use neonhub_processors::engine::{EngineMetrics, SourceEvent};
use neonhub_processors::landing::{BatchLimits, Ended, Inserters, Insertion, Landing, LandingConfig};
use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;

use crate::fake_ports::{FakePorts, record};

const IDLE: Duration = Duration::from_millis(50);
const INSERT: Duration = Duration::from_millis(5);

/// Insertions run until they are told to end.
#[derive(Default)]
struct Desk {
    free: usize,
    begun: Vec<TopicPartition>,
    ended: Vec<TopicPartition>,
    waits: Vec<Duration>,
}

#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Desk>>);

impl Slow {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap()
    }
}

impl Inserters for Slow {
    fn free(&self) -> usize {
        self.desk().free
    }

    fn begin(&mut self, insertion: Insertion) {
        self.desk().begun.push(insertion.place);
    }

    fn ended(&mut self, wait: Duration) -> Vec<Ended> {
        let mut desk = self.desk();
        desk.waits.push(wait);
        std::mem::take(&mut desk.ended).into_iter().map(|place| Ended { place, outcome: Ok(()) }).collect()
    }
}

fn place(partition: u32) -> TopicPartition {
    TopicPartition { topic: Topic::EventsBehavior, partition }
}

/// No event, so each is a dead letter.
fn one_of(partition: u32, offset: u64) -> SourceEvent {
    SourceEvent::Records(vec![record(place(partition), offset, "no event")])
}

struct Bench {
    landing: Landing,
    fake: FakePorts,
    slow: Slow,
    now: Arc<AtomicI64>,
}

impl Bench {
    /// Partitions 0, 1 and 2, each record a batch.
    fn open(free: usize) -> Self {
        let (fake, slow, now) = (FakePorts::default(), Slow::default(), Arc::new(AtomicI64::new(1_000_000)));
        slow.desk().free = free;
        let config = LandingConfig {
            limits: BatchLimits { max_rows: 1, max_bytes: usize::MAX },
            idle_wait: IDLE,
            insert_wait: INSERT,
            ..LandingConfig::default()
        };
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        let clock = Arc::clone(&now);
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let landing = Landing::new(fake.ports(), Box::new(slow.clone()), clock, config, metrics);
        let mut bench = Self { landing, fake, slow, now };
        bench.step(vec![SourceEvent::Assigned((0..3).map(place).collect())]);
        bench.slow.desk().waits.clear();
        bench.fake.world().waits.clear();
        bench
    }

    fn step(&mut self, events: Vec<SourceEvent>) {
        self.fake.says(events);
        self.landing.step().unwrap();
    }

    /// How long it waited for records, and for inserters, since the last call.
    fn waits(&self) -> (Vec<Duration>, Vec<Duration>) {
        (std::mem::take(&mut self.fake.world().waits), std::mem::take(&mut self.slow.desk().waits))
    }
}

#[test]
fn a_turn_waits_for_records_only_when_nothing_is_being_inserted() {
    let mut bench = Bench::open(3);
    bench.step(Vec::new());
    assert_eq!(bench.waits(), (vec![IDLE], vec![INSERT]));
    bench.step(vec![one_of(0, 0)]);
    assert_eq!(bench.waits(), (vec![IDLE], vec![Duration::ZERO]), "records came: they are not held up");
    bench.step(Vec::new());
    assert_eq!(bench.waits(), (vec![Duration::ZERO], vec![INSERT]), "one is being inserted");
    bench.slow.desk().ended.push(place(0));
    bench.step(Vec::new());
    bench.waits();
    bench.step(Vec::new());
    assert_eq!(bench.waits().0, [IDLE], "it has ended");
}

#[test]
fn those_that_wait_longest_begin_first_and_no_more_than_there_is_room_for() {
    let mut bench = Bench::open(0);
    for partition in [2, 0, 1] {
        bench.step(vec![one_of(partition, 0)]);
        bench.now.fetch_add(10, Ordering::Relaxed);
    }
    assert_eq!(bench.slow.desk().begun, []);
    bench.slow.desk().free = 2;
    bench.step(Vec::new());
    assert_eq!(bench.slow.desk().begun, [place(2), place(0)]);
    bench.step(Vec::new());
    assert_eq!(bench.slow.desk().begun[2..], [place(1)], "those that are being inserted do not begin again");
}

#[test]
fn a_partition_that_comes_back_waits_for_its_insertion_to_end() {
    let mut bench = Bench::open(3);
    bench.step(vec![one_of(0, 0)]);
    bench.step(vec![one_of(1, 0)]);
    assert_eq!(bench.slow.desk().begun, [place(0), place(1)]);
    bench.step(vec![SourceEvent::Revoked(vec![place(0)])]);
    bench.step(vec![SourceEvent::Assigned(vec![place(0)]), one_of(0, 0)]);
    bench.slow.desk().ended.push(place(1));
    bench.step(Vec::new());
    assert_eq!(bench.slow.desk().begun.len(), 2, "the insertion of before is still running");
    bench.slow.desk().ended.push(place(0));
    bench.step(Vec::new());
    assert_eq!(bench.slow.desk().begun[2..], [place(0)]);
    let committed = bench.fake.world().committed[&place(0)].clone();
    assert_eq!((committed.offset, committed.metadata.as_str()), (0, "to=1"), "nothing is concluded from its end");
}
