//! The merge stage in a worker with a local state and next to no memory: whatever waits on the disk, and whenever the worker
//! is made anew, each window is what a recount says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use neonhub_processors::engine::{EngineMetrics, MemoryStates, Ports, SourceEvent, Worker, WorkerConfig};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge};
use neonhub_schemas::record::{NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Calendar, Grain, WindowUpsert};

use crate::fake_ports::{FakePorts, record};
use crate::merge::{MINUTE, config, delta, watermark};

const PLACE: TopicPartition = TopicPartition { topic: Topic::MetricsPartials, partition: 0 };
const WINDOWS: TopicPartition = TopicPartition { topic: Topic::MetricsWindows, partition: 0 };
const BUDGET: i64 = 6_000;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct Bench {
    fake: FakePorts,
    disk: MemoryStates,
    now: Arc<AtomicI64>,
    metrics: EngineMetrics,
    worker: Option<Worker<MetricsMerge>>,
    /// Offsets of the input are given out up to here.
    end: u64,
}

impl Bench {
    fn new() -> Self {
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        let (fake, disk, now) = (FakePorts::default(), MemoryStates::default(), Arc::new(AtomicI64::new(1_000_000)));
        Self { fake, disk, now, metrics, worker: None, end: 0 }
    }

    /// A new worker: takes up the local state and reads the input again from the committed offset on.
    fn restart(&mut self) {
        let config = MergeConfig {
            max_keys: 6,
            residence: Duration::from_secs(20),
            grace: [Duration::from_secs(60); 6],
            memory_per_partition: usize::try_from(BUDGET).unwrap(),
            save_interval: Duration::from_secs(3),
            ..config()
        };
        let ports = Ports { states: Some(Box::new(self.disk.clone())), ..self.fake.ports() };
        let now = Arc::clone(&self.now);
        let clock = Arc::new(move || now.load(Ordering::Relaxed));
        let stage = MetricsMerge::new(config).unwrap();
        self.worker = Some(Worker::new(stage, ports, clock, WorkerConfig::default(), self.metrics.clone()).unwrap());
        self.step(vec![SourceEvent::Assigned(vec![PLACE])]);
        let from = self.fake.world().committed.get(&PLACE).map_or(0, |committed| committed.offset);
        let again: Vec<Record> = self.input().into_iter().filter(|record| record.offset >= from).collect();
        self.step(vec![SourceEvent::Records(again)]);
    }

    fn input(&self) -> Vec<Record> {
        self.fake.world().logs.get(&PLACE).cloned().unwrap_or_default()
    }

    fn feed(&mut self, new: NewRecord) {
        let fed = Record { key: new.key, value: new.value, headers: new.headers, ..record(PLACE, self.end, "") };
        self.end += 1;
        self.fake.world().logs.entry(PLACE).or_default().push(fed.clone());
        self.step(vec![SourceEvent::Records(vec![fed])]);
    }

    fn step(&mut self, events: Vec<SourceEvent>) {
        self.fake.says(events);
        self.worker.as_mut().unwrap().step().unwrap();
    }

    fn later(&mut self, milliseconds: u64) {
        self.now.fetch_add(i64::try_from(milliseconds).unwrap(), Ordering::Relaxed);
        self.step(Vec::new());
    }

    /// By grain and start: the count of all keys and epochs, and whether all of them are final.
    fn windows(&self) -> BTreeMap<(Grain, i64), (u64, bool)> {
        let mut newest = BTreeMap::new();
        for record in self.fake.world().logs.get(&WINDOWS).into_iter().flatten() {
            let Some(value) = &record.value else { continue };
            let upsert: WindowUpsert = serde_json::from_slice(value).unwrap();
            let known: Option<WindowUpsert> = newest.insert(record.key.clone(), upsert.clone());
            assert!(known.is_none_or(|known| known.revision < upsert.revision), "a revision came again: {upsert:?}");
        }
        let mut windows = BTreeMap::new();
        for upsert in newest.into_values() {
            let window = windows.entry((upsert.grain, upsert.window_start)).or_insert((0, true));
            window.0 += upsert.state.count;
            window.1 &= upsert.r#final;
        }
        windows
    }

    /// Windows in memory, and the bytes that they take, as the gauges tell.
    fn in_memory(&self) -> (i64, i64) {
        let labels = ["metrics.merge", "metrics.partials", "0"];
        let metrics = &self.metrics;
        (metrics.state_entries.with_label_values(&labels).get(), metrics.state_bytes.with_label_values(&labels).get())
    }
}

fn play(seed: u64) {
    let mut dice = Dice(seed);
    let mut bench = Bench::new();
    let mut calendar = Calendar::new("UTC").unwrap();
    let mut expected: BTreeMap<(Grain, i64), (u64, bool)> = BTreeMap::new();
    let mut most_bytes = 0;
    bench.restart();
    for turn in 0..400_i64 {
        // Event time goes on by a quarter of an hour a turn, with events from up to two days before.
        let newest = MINUTE + turn * 900;
        let minute = newest - i64::try_from(dice.below(2 * 24 * 60)).unwrap() * 60;
        let campaign = format!("campaign-{}", dice.below(12));
        bench.feed(delta(&campaign, &[minute], "1"));
        for grain in Grain::ALL {
            expected.entry((grain, calendar.window(grain, minute).start_s)).or_insert((0, true)).0 += 1;
        }
        if dice.below(4) == 0 {
            bench.feed(watermark(newest - 86_400));
        }
        bench.later(dice.below(4_000));
        if dice.below(25) == 0 {
            bench.restart();
        }
        most_bytes = most_bytes.max(bench.in_memory().1);
    }
    bench.feed(watermark(MINUTE + 400 * 86_400));
    for _ in 0..20 {
        bench.later(5_000);
    }
    assert!(bench.windows() == expected, "seed {seed}: {:?} instead of {expected:?}", bench.windows());
    assert_eq!(bench.in_memory(), (0, 0), "everything is over");
    // What is at work stays in memory until it is saved, every three seconds.
    assert!((BUDGET / 2..BUDGET * 4).contains(&most_bytes), "seed {seed}: {most_bytes} bytes");
    let windows = bench.fake.world().logs.remove(&WINDOWS).unwrap();
    let opened: std::collections::BTreeSet<_> = windows.iter().map(|record| record.key.clone()).collect();
    let ended = windows.iter().filter(|record| record.value.is_none()).count();
    assert_eq!(ended, opened.len(), "each epoch ends once");
}

#[test]
fn windows_on_the_disk_count_like_those_in_memory() {
    (1..=6).for_each(play);
}
