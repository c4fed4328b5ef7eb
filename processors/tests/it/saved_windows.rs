//! When the merge stage saves its windows and when it leaves them to the local state, told by what is read and written there.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use neonhub_processors::engine::{
    Change, EngineError, EngineMetrics, MemoryStates, Ports, SourceEvent, StateStore, StateStores, Worker, WorkerConfig,
};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge};
use neonhub_schemas::metric::OTHER;
use neonhub_schemas::record::{NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Grain, WindowUpsert};

use crate::fake_ports::{FakePorts, record};
use crate::merge::{MINUTE, config, delta, key, watermark};

const PLACE: TopicPartition = TopicPartition { topic: Topic::MetricsPartials, partition: 0 };
const INTERVAL_MS: i64 = 3_000;
/// First byte of the keys of windows, of windows that are not final, and of those that are.
const WINDOW: u8 = 1;
const OPEN: u8 = 2;
const FINAL: u8 = 3;
/// The key of what is saved beside the windows.
const META: &[u8] = &[4];

/// What was asked of a store.
#[derive(Default)]
struct Told {
    saves: Vec<Vec<Change>>,
    /// Windows that were read by their keys.
    reads: usize,
    flushes: usize,
}

#[derive(Clone, Default)]
struct Watched {
    disk: MemoryStates,
    told: Arc<Mutex<Told>>,
}

struct WatchedStore(Box<dyn StateStore>, Arc<Mutex<Told>>);

impl StateStores for Watched {
    fn open(&mut self, stage: &'static str, partition: TopicPartition) -> Result<Box<dyn StateStore>, EngineError> {
        Ok(Box::new(WatchedStore(self.disk.open(stage, partition)?, Arc::clone(&self.told))))
    }
}

impl StateStore for WatchedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.1.lock().unwrap().reads += usize::from(key.first() == Some(&WINDOW));
        self.0.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        self.0.scan(from, to, each)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.1.lock().unwrap().saves.push(changes.clone());
        self.0.write(changes)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.1.lock().unwrap().flushes += 1;
        self.0.flush()
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.0.clear()
    }
}

struct Bench {
    worker: Worker<MetricsMerge>,
    config: MergeConfig,
    fake: FakePorts,
    watched: Watched,
    now: Arc<AtomicI64>,
    next: u64,
}

impl Bench {
    fn open(budget: usize) -> Self {
        Self::of(MergeConfig { memory_per_partition: budget, windows_per_commit: usize::MAX, ..config() })
    }

    fn of(config: MergeConfig) -> Self {
        let (fake, watched, now) = (FakePorts::default(), Watched::default(), Arc::new(AtomicI64::new(1_000_000)));
        let save_interval = Duration::from_millis(INTERVAL_MS.unsigned_abs());
        let config = MergeConfig { save_interval, ..config };
        let worker = Self::worker(&config, &fake, &watched, &now);
        let mut bench = Self { worker, config, fake, watched, now, next: 0 };
        bench.step(vec![SourceEvent::Assigned(vec![PLACE])]);
        bench
    }

    fn worker(config: &MergeConfig, fake: &FakePorts, watched: &Watched, now: &Arc<AtomicI64>) -> Worker<MetricsMerge> {
        let ports = Ports { states: Some(Box::new(watched.clone())), ..fake.ports() };
        let clock = Arc::clone(now);
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        let stage = MetricsMerge::new(config.clone()).unwrap();
        Worker::new(stage, ports, clock, WorkerConfig::default(), metrics).unwrap()
    }

    /// Another worker takes the partition.
    fn reopen(&mut self) {
        self.worker = Self::worker(&self.config, &self.fake, &self.watched, &self.now);
        self.step(vec![SourceEvent::Assigned(vec![PLACE])]);
    }

    fn step(&mut self, events: Vec<SourceEvent>) {
        self.fake.says(events);
        self.worker.step().unwrap();
    }

    fn arrived(&mut self, new: NewRecord) -> Record {
        let arrived = Record { key: new.key, value: new.value, headers: new.headers, ..record(PLACE, self.next, "") };
        self.next += 1;
        self.fake.world().logs.entry(PLACE).or_default().push(arrived.clone());
        arrived
    }

    /// Records, and the commit that takes them.
    fn feed(&mut self, records: Vec<NewRecord>) {
        for new in records {
            let fed = self.arrived(new);
            self.step(vec![SourceEvent::Records(vec![fed])]);
        }
        self.later(100);
    }

    fn later(&mut self, milliseconds: i64) {
        self.now.fetch_add(milliseconds, Ordering::Relaxed);
        self.step(Vec::new());
    }

    /// All that was said is heard: while memory is full, nothing is polled.
    fn drain(&mut self) {
        while !self.fake.world().polls.is_empty() {
            self.worker.step().unwrap();
        }
    }

    fn at(&mut self, now_ms: i64) {
        self.now.store(now_ms, Ordering::Relaxed);
        self.step(Vec::new());
        self.drain();
    }

    /// Of windows whose key has this in it.
    fn tombstones(&self, part: &str) -> usize {
        let world = self.fake.world();
        let windows = &world.logs[&TopicPartition { topic: Topic::MetricsWindows, partition: 0 }];
        let is_it = |record: &&Record| record.value.is_none() && String::from_utf8_lossy(&record.key).contains(part);
        windows.iter().filter(is_it).count()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.watched.told.lock().unwrap()
    }

    /// The newest upsert of the campaign's window of the first minute.
    fn minute(&self, campaign: &str) -> Option<WindowUpsert> {
        let world = self.fake.world();
        let windows = &world.logs[&TopicPartition { topic: Topic::MetricsWindows, partition: 0 }];
        let values = windows.iter().filter_map(|record| record.value.as_ref());
        let upserts = values.map(|value| serde_json::from_slice::<WindowUpsert>(value).unwrap());
        let ours = |upsert: &WindowUpsert| {
            upsert.key.dimensions == key(campaign).dimensions
                && (upsert.grain, upsert.window_start) == (Grain::Minute, MINUTE)
        };
        upserts.filter(ours).max_by_key(|upsert| upsert.revision)
    }

    /// The saves since the last call: of each kind of key how many were put and taken away.
    fn saves(&self) -> Vec<[(usize, usize); 3]> {
        let count = |changes: &[Change], kind: u8| {
            let of_kind = changes.iter().filter(|(key, _)| key.first() == Some(&kind));
            let (put, taken): (Vec<_>, Vec<_>) = of_kind.partition(|(_, value)| value.is_some());
            (put.len(), taken.len())
        };
        let saves = std::mem::take(&mut self.told().saves);
        saves.iter().map(|changes| [WINDOW, OPEN, FINAL].map(|kind| count(changes, kind))).collect()
    }
}

const NOTHING: (usize, usize) = (0, 0);

#[test]
fn windows_are_saved_at_first_and_then_in_their_rhythm_if_they_have_changed() {
    let mut bench = Bench::open(usize::MAX);
    bench.feed(vec![delta("men", &[MINUTE], "1")]);
    assert_eq!(bench.saves(), [[(6, 0), (6, 0), NOTHING]], "six grains");
    bench.feed(vec![delta("men", &[MINUTE], "1")]);
    bench.later(INTERVAL_MS - 101);
    assert_eq!(bench.saves(), [] as [[(usize, usize); 3]; 0], "a millisecond early");
    bench.later(1);
    assert_eq!(bench.saves(), [[(6, 0), NOTHING, NOTHING]], "they are in the index already");
    bench.later(INTERVAL_MS);
    assert_eq!(bench.saves(), [[NOTHING; 3]], "windows went out with the last one: its marker lies before them");
    for _ in 0..3 {
        bench.later(INTERVAL_MS);
    }
    assert_eq!(bench.saves(), [] as [[(usize, usize); 3]; 0], "there is nothing more to say");
}

#[test]
fn a_save_of_more_than_one_portion_is_flushed_with_its_marker() {
    for (portion, flushes) in [(6, 0), (5, 1), (2, 1)] {
        let mut bench = Bench::of(MergeConfig { windows_per_commit: portion, ..config() });
        let settle = |bench: &mut Bench| (0..10).for_each(|_| bench.later(INTERVAL_MS));
        bench.feed(vec![delta("men", &[MINUTE], "1")]);
        settle(&mut bench);
        assert_eq!(bench.told().flushes, flushes, "six windows in portions of {portion}");
        bench.feed(vec![watermark(MINUTE + 60)]);
        settle(&mut bench);
        assert_eq!(bench.told().flushes, flushes, "one window");
    }
}

#[test]
fn a_save_says_up_to_which_delta_it_is() {
    let mut bench = Bench::open(usize::MAX);
    let mut said = Vec::new();
    for _ in 0..3 {
        bench.feed(vec![delta("men", &[MINUTE], "1")]);
        bench.later(INTERVAL_MS);
        let saves = std::mem::take(&mut bench.told().saves);
        let metas = saves.into_iter().flatten().filter(|(key, _)| key == META);
        let newest = metas.filter_map(|(_, value)| value).next_back();
        said.push(newest.unwrap());
    }
    said.dedup();
    assert_eq!(said.len(), 3, "the windows' keys and the watermarks are the same, the deltas are not");
}

#[test]
fn what_was_saved_is_taken_up_with_its_watermark_and_nothing_is_read_from_the_log() {
    let mut bench = Bench::open(usize::MAX);
    bench.feed(vec![delta("men", &[MINUTE], "1.5"), watermark(MINUTE + 60)]);
    for _ in 0..3 {
        bench.later(INTERVAL_MS);
    }
    bench.fake.world().reads.clear();
    bench.reopen();
    assert_eq!(bench.fake.world().reads, []);
    bench.feed(vec![delta("men", &[MINUTE], "2"), delta("women", &[MINUTE], "3")]);
    let minute = |campaign: &str| {
        let newest = bench.minute(campaign).unwrap();
        (newest.revision, newest.state.to_aggregate().unwrap().sum.to_string(), newest.r#final)
    };
    assert_eq!(minute("men"), (3, "3.5".to_owned(), true), "opened, final, more");
    assert_eq!(minute("women"), (1, "3".to_owned(), true), "late: the watermark is known");
}

#[test]
fn the_cap_counts_windows_on_the_disk_also_when_one_of_them_comes_back_to_become_final() {
    let mut bench = Bench::of(MergeConfig { memory_per_partition: 1, windows_per_commit: 1, max_keys: 4, ..config() });
    let settle = |bench: &mut Bench| (0..30).for_each(|_| bench.later(1));
    for campaign in ["a", "b", "c"] {
        bench.feed(vec![delta(campaign, &[MINUTE], "1")]);
        settle(&mut bench);
    }
    assert_eq!(bench.worker.state_size().0, 0, "all are on the disk");
    let records = [watermark(MINUTE + 60), delta("d", &[MINUTE], "1"), delta("e", &[MINUTE], "1")];
    let records = records.into_iter().map(|new| bench.arrived(new)).collect();
    bench.step(vec![SourceEvent::Records(records)]);
    settle(&mut bench);
    assert!(["a", "b", "c", "d", OTHER].iter().all(|campaign| bench.minute(campaign).unwrap().r#final));
    assert!(bench.minute("e").is_none(), "the fifth is counted with the others");
}

#[test]
fn windows_on_the_disk_become_final_as_many_at_a_time_as_go_out_in_a_commit() {
    const AT_ONCE: usize = 4;
    let mut bench = Bench::of(MergeConfig {
        memory_per_partition: 1,
        windows_per_commit: AT_ONCE,
        cadence: [Duration::ZERO; 6],
        ..config()
    });
    for number in 0..12 {
        bench.feed(vec![delta(&format!("campaign-{number}"), &[MINUTE], "1")]);
        (0..30).for_each(|_| bench.later(1));
    }
    bench.drain();
    assert_eq!(bench.worker.state_size().0, 0, "all are on the disk");
    bench.told().reads = 0;
    let watermarks = (60..63).map(|second| watermark(MINUTE + second)).collect::<Vec<_>>();
    let watermarks = watermarks.into_iter().map(|new| bench.arrived(new)).collect();
    bench.step(vec![SourceEvent::Records(watermarks)]);
    assert_eq!(bench.told().reads, AT_ONCE, "however many watermarks came");
    (0..30).for_each(|_| bench.later(100));
    assert!((0..12).all(|number| bench.minute(&format!("campaign-{number}")).unwrap().r#final));
}

#[test]
fn what_becomes_final_changes_its_index_and_what_is_over_leaves_all_of_them() {
    let mut bench = Bench::open(usize::MAX);
    bench.feed(vec![delta("men", &[MINUTE], "1")]);
    bench.saves();
    bench.feed(vec![watermark(MINUTE + 60)]);
    bench.later(INTERVAL_MS);
    assert_eq!(bench.saves(), [[(1, 0), (0, 1), (1, 0)]], "the minute is over");
    bench.feed(vec![watermark(MINUTE + 400 * 86_400)]);
    bench.later(INTERVAL_MS);
    assert_eq!(bench.saves()[0], [(5, 0), (0, 5), (5, 0)], "and so is the month");
    bench.later(100_000);
    bench.later(INTERVAL_MS);
    let taken: usize = bench.saves().iter().map(|[windows, ..]| windows.1).sum();
    assert_eq!((taken, bench.worker.state_size().0), (6, 0), "their grace is over, too");
    let store = bench.watched.open("metrics.merge", PLACE).unwrap();
    let mut left = Vec::new();
    let keep = &mut |key: &[u8], _: &[u8]| {
        left.push(key.to_vec());
        true
    };
    store.scan(&[WINDOW], META, keep).unwrap();
    assert!(left.is_empty(), "no index names them: {left:?}");
}

#[test]
fn memory_over_its_budget_is_saved_at_once_and_the_coldest_quarter_leaves() {
    const BUDGET: usize = 20_000;
    let mut bench = Bench::open(BUDGET);
    bench.feed(vec![delta("first", &[MINUTE], "1")]);
    bench.saves();
    let saved_at_ms = bench.now.load(Ordering::Relaxed);
    let mut fed = 0;
    while bench.told().saves.is_empty() {
        bench.feed(vec![delta(&format!("campaign-{fed}"), &[MINUTE], "1")]);
        fed += 1;
    }
    assert!(bench.now.load(Ordering::Relaxed) - saved_at_ms < INTERVAL_MS, "it waited for its turn");
    let (_, size) = bench.worker.state_size();
    assert!(size <= BUDGET / 4 * 3, "{size} bytes stay");
    assert!(size > BUDGET / 2, "no more leave than have to: {size} bytes stay");
    bench.told().reads = 0;
    bench.feed(vec![delta(&format!("campaign-{}", fed - 1), &[MINUTE], "1")]);
    assert_eq!(bench.told().reads, 0, "the newest is in memory");
    bench.feed(vec![delta("first", &[MINUTE], "1")]);
    assert_eq!(bench.told().reads, 6, "the oldest is brought back, in each grain");
    bench.told().reads = 0;
    bench.feed(vec![delta("another", &[MINUTE + 400 * 86_400], "1")]);
    assert_eq!(bench.told().reads, 0, "no window of the metric at that time is on the disk");
}

#[test]
fn what_was_asked_for_and_is_not_there_is_not_remembered() {
    // At another time: what a metric has at one time is counted together.
    let with_men = |bench: &mut Bench| {
        bench.feed(vec![delta("men", &[MINUTE + 800 * 86_400], "1")]);
        bench.later(INTERVAL_MS);
        bench.worker.state_size()
    };
    let expected = with_men(&mut Bench::open(usize::MAX));
    let mut bench = Bench::of(MergeConfig { residence: Duration::ZERO, ..config() });
    bench.feed(vec![watermark(MINUTE + 400 * 86_400), delta("women", &[MINUTE], "1")]);
    bench.later(100_000);
    assert_eq!(bench.tombstones("women"), 6);
    // Compaction leaves their tombstones, and the watermark is another's.
    let windows = TopicPartition { topic: Topic::MetricsWindows, partition: 0 };
    let changelog = TopicPartition { topic: Topic::MetricsChangelog, partition: 0 };
    bench.fake.world().logs.get_mut(&windows).unwrap().retain(|record| record.value.is_none());
    bench.fake.world().logs.remove(&changelog);
    bench.watched = Watched::default();
    bench.reopen();
    assert_eq!(with_men(&mut bench), expected);
}

#[test]
fn memory_may_be_full_to_the_byte() {
    let filled = |budget| {
        let mut bench = Bench::open(budget);
        bench.feed(vec![delta("men", &[MINUTE], "1")]);
        bench.later(INTERVAL_MS);
        bench.worker.state_size()
    };
    let (windows, bytes) = filled(usize::MAX);
    assert_eq!(filled(bytes), (windows, bytes));
    assert!(filled(bytes - 1).0 < windows);
}

#[test]
fn a_budget_that_nothing_fits_into_holds_nothing_up() {
    let mut bench = Bench::open(0);
    for _ in 0..3 {
        bench.feed(vec![delta("men", &[MINUTE], "1")]);
    }
    bench.later(INTERVAL_MS);
    assert_eq!(bench.minute("men").unwrap().state.count, 3);
}

#[test]
fn a_backlog_is_put_out_and_saved_before_more_is_read() {
    const BUDGET: usize = 20_000;
    const AT_ONCE: usize = 10;
    let mut bench = Bench::of(MergeConfig { memory_per_partition: BUDGET, windows_per_commit: AT_ONCE, ..config() });
    let campaigns = |from: u32, to: u32| (from..to).map(|number| delta(&format!("campaign-{number}"), &[MINUTE], "1"));
    let backlog: Vec<Record> = campaigns(0, 100).map(|new| bench.arrived(new)).collect();
    let more: Vec<Record> = campaigns(100, 101).map(|new| bench.arrived(new)).collect();
    bench.fake.says(vec![SourceEvent::Records(backlog)]);
    bench.fake.says(vec![SourceEvent::Records(more)]);
    bench.worker.step().unwrap();
    let mut commits = 1;
    while bench.worker.state_size().1 > BUDGET {
        assert_eq!(bench.fake.world().polls.len(), 1, "it reads on without room");
        assert_eq!(bench.saves(), [] as [[(usize, usize); 3]; 0], "windows that were not put out are not saved");
        bench.worker.step().unwrap();
        commits += 1;
    }
    assert_eq!(commits, 6, "one for each grain, since a metric's windows of one time go together");
    assert!(bench.saves().len() > 1, "in portions");
    bench.worker.step().unwrap();
    assert!(bench.fake.world().polls.is_empty(), "it reads on");
}

#[test]
fn a_window_on_the_disk_stays_as_long_as_deltas_came() {
    let config = MergeConfig { memory_per_partition: 1, windows_per_commit: usize::MAX, ..config() };
    let mut bench = Bench::of(MergeConfig { residence: Duration::from_secs(60), ..config });
    bench.feed(vec![watermark(MINUTE + 400 * 86_400)]);
    let touched_at_ms = bench.now.load(Ordering::Relaxed);
    bench.feed(vec![delta("men", &[MINUTE], "1")]);
    bench.drain();
    assert_eq!(bench.worker.state_size().0, 0, "it is on the disk");
    bench.at(touched_at_ms + 59_999);
    assert_eq!(bench.tombstones("men"), 0, "touched within the last minute");
    bench.at(touched_at_ms + 69_999);
    assert_eq!(bench.tombstones("men"), 6);
}

/// As in memory: evicted while its last delta may come again, it would count that delta twice.
#[test]
fn a_window_on_the_disk_stays_while_its_last_delta_may_be_read_again() {
    let hours_wait = [0, 3_600, 3_600, 3_600, 3_600, 3_600].map(Duration::from_secs);
    let mut bench = Bench::of(MergeConfig { cadence: hours_wait, residence: Duration::ZERO, ..config() });
    bench.feed(vec![watermark(MINUTE + 400 * 86_400), delta("men", &[MINUTE], "1")]);
    bench.feed(vec![delta("women", &[MINUTE], "1")]);
    let place = bench.fake.world().committed[&PLACE].offset;
    assert_eq!(place, 2, "the women's hour has not gone out with their minute");
    // Another worker, on another disk, without room in memory.
    bench.watched = Watched::default();
    bench.config.memory_per_partition = 1;
    bench.reopen();
    bench.later(100_000);
    bench.drain();
    assert_eq!((bench.tombstones("\"men\""), bench.tombstones("women")), (6, 0));
    let again = bench.fake.world().logs[&PLACE][2].clone();
    bench.step(vec![SourceEvent::Records(vec![again])]);
    bench.drain();
    assert_eq!(bench.minute("women").unwrap().state.count, 1);
}
