//! The worker's cycle over a stage that copies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use neonhub_processors::engine::{
    EngineError, EngineMetrics, LocalState, Outputs, Progress, Restore, SourceEvent, Stage, Worker, WorkerConfig,
};
use neonhub_schemas::record::{CommittedOffset, Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use prometheus::core::Collector as _;

use crate::fake_ports::{FakePorts, record};

const FIRST: TopicPartition = TopicPartition { topic: Topic::RawBehavior, partition: 0 };
const SECOND: TopicPartition = TopicPartition { topic: Topic::RawBehavior, partition: 1 };
const OWN: TopicPartition = TopicPartition { topic: Topic::EventsBehavior, partition: 0 };
const CONTROL: TopicPartition = TopicPartition { topic: Topic::Control, partition: 0 };
const NOON_MS: i64 = 1_000_000;
const COMMIT_BYTES: usize = 10_000;

/// Copies each record; a record that says `silent` leaves nothing, one that says `hopeless` ends it. At an end it says so
/// once, without an offset.
struct Copying {
    observed: Arc<Mutex<Vec<u64>>>,
    restored: Arc<Mutex<Vec<(Topic, u64)>>>,
    restores: Vec<Restore>,
}

#[derive(Default)]
struct CopyTask {
    at_end: Option<&'static str>,
    seen: usize,
}

fn copied(key: String) -> NewRecord {
    let (key, headers) = (Bytes::from(key), Headers::new());
    NewRecord { topic: Topic::EventsBehavior, partition: Some(0), key, value: None, headers, timestamp_ms: 0 }
}

impl Stage for Copying {
    type Task = CopyTask;

    fn name(&self) -> &'static str {
        "copying"
    }

    fn inputs(&self) -> Vec<Topic> {
        vec![Topic::RawBehavior]
    }

    fn outputs(&self) -> Vec<Topic> {
        vec![Topic::EventsBehavior]
    }

    fn globals(&self) -> Vec<Topic> {
        vec![Topic::Control]
    }

    fn observe_global(&mut self, record: &Record) {
        self.observed.lock().unwrap().push(record.offset);
    }

    fn open(
        &self,
        _place: TopicPartition,
        _committed: Option<&CommittedOffset>,
        _local: Option<LocalState>,
    ) -> Result<CopyTask, EngineError> {
        Ok(CopyTask::default())
    }

    fn restore_plan(&self, _place: TopicPartition, _committed: Option<&CommittedOffset>) -> Vec<Restore> {
        self.restores.clone()
    }

    fn restore(&self, _task: &mut CopyTask, record: &Record) -> Result<(), EngineError> {
        self.restored.lock().unwrap().push((record.topic, record.offset));
        Ok(())
    }

    fn process(&self, task: &mut CopyTask, record: &Record, _now_ms: i64, out: &mut Outputs) {
        task.seen += 1;
        out.duplicates += 1;
        out.late += 2;
        out.dead_letters += 3;
        out.capped += 4;
        if record.value.as_deref() == Some(b"hopeless") {
            out.fail(EngineError::Fatal("the disk fails".to_owned()));
        }
        if record.value.as_deref() != Some(b"silent") {
            let known = self.observed.lock().unwrap().len();
            let key = format!("{}@{} knows {known}", record.partition, record.offset);
            out.records.push(NewRecord { value: record.value.clone(), ..copied(key) });
        }
    }

    fn at_end(&self, task: &mut CopyTask, _now_ms: i64) {
        task.at_end = Some(if task.seen == 0 { "nothing" } else { "end" });
    }

    fn is_due(&self, task: &CopyTask, _now_ms: i64) -> bool {
        task.at_end.is_some()
    }

    fn prepare_commit(
        &self,
        task: &mut CopyTask,
        next_offset: Option<u64>,
        _now_ms: i64,
        out: &mut Outputs,
    ) -> Option<CommittedOffset> {
        if let Some(said) = task.at_end.take() {
            out.records.extend((said == "end").then(|| copied(said.to_owned())));
            return None;
        }
        next_offset.map(|offset| CommittedOffset { offset, metadata: String::new() })
    }

    fn watermark_ms(&self, _task: &CopyTask) -> Option<i64> {
        Some(NOON_MS - 5_000)
    }

    fn state_size(&self, task: &CopyTask) -> (usize, usize) {
        (task.seen, task.seen * 10)
    }
}

struct Bench {
    fake: FakePorts,
    worker: Worker<Copying>,
    now: Arc<AtomicI64>,
    observed: Arc<Mutex<Vec<u64>>>,
    restored: Arc<Mutex<Vec<(Topic, u64)>>>,
    metrics: EngineMetrics,
}

impl Bench {
    fn new(fake: &FakePorts, restores: Vec<Restore>) -> Self {
        let (observed, restored) = (Arc::default(), Arc::default());
        let stage = Copying { observed: Arc::clone(&observed), restored: Arc::clone(&restored), restores };
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        let now = Arc::new(AtomicI64::new(NOON_MS));
        let config = WorkerConfig { commit_records: 3, commit_bytes: COMMIT_BYTES, ..WorkerConfig::default() };
        let clock = Arc::clone(&now);
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let worker = Worker::new(stage, fake.ports(), clock, config, metrics.clone()).unwrap();
        Self { fake: fake.clone(), worker, now, observed, restored, metrics }
    }

    /// A worker that has both partitions.
    fn open() -> Self {
        let mut bench = Self::new(&FakePorts::default(), Vec::new());
        bench.step(vec![SourceEvent::Assigned(vec![FIRST, SECOND])]);
        bench
    }

    fn step(&mut self, events: Vec<SourceEvent>) -> Progress {
        self.fake.says(events);
        self.worker.step().unwrap()
    }

    fn later(&self, milliseconds: i64) {
        self.now.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

fn records(offsets: std::ops::Range<u64>) -> SourceEvent {
    SourceEvent::Records(offsets.map(|offset| record(FIRST, offset, "v")).collect())
}

fn keys(offsets: std::ops::Range<u64>) -> Vec<String> {
    offsets.map(|offset| format!("0@{offset} knows 0")).collect()
}

#[test]
fn outputs_are_committed_with_the_offset_after_them_and_what_comes_again_is_passed_over() {
    let mut bench = Bench::open();
    assert_eq!(bench.fake.world().resumed, [FIRST, SECOND]);
    let progress = bench.step(vec![records(0..1), records(1..2)]);
    assert_eq!(progress, Progress { records: 2, committed: false });
    // Delivered again before the commit, and after it.
    bench.step(vec![records(0..2)]);
    assert!(bench.step(Vec::new()).committed);
    assert_eq!(bench.fake.take_units(), [(keys(0..2), vec![(FIRST, 2)])]);
    bench.step(vec![records(1..3)]);
    bench.step(Vec::new());
    assert_eq!(bench.fake.take_units(), [(keys(2..3), vec![(FIRST, 3)])]);
    // What leaves no output is committed all the same.
    bench.step(vec![SourceEvent::Records(vec![record(FIRST, 3, "silent")])]);
    bench.step(Vec::new());
    assert_eq!(bench.fake.take_units(), [(Vec::new(), vec![(FIRST, 4)])]);
    assert!(!bench.step(Vec::new()).committed, "nothing is there to commit");
    assert_eq!(bench.metrics.commits.with_label_values(&["copying"]).get(), 3);
}

#[test]
fn a_commit_waits_for_a_pause_its_interval_or_enough_records_or_bytes() {
    let mut bench = Bench::open();
    assert!(!bench.step(vec![records(0..1)]).committed);
    bench.later(99);
    assert!(!bench.step(vec![records(1..2)]).committed);
    bench.later(1);
    // The interval counts from the first record that waits.
    assert!(bench.step(vec![records(2..2)]).committed, "an empty delivery is a pause");
    assert!(!bench.step(vec![records(2..3)]).committed);
    bench.later(100);
    assert!(bench.step(vec![records(3..4)]).committed, "100 ms have passed");
    assert!(!bench.step(vec![records(4..6)]).committed);
    assert!(bench.step(vec![records(6..7)]).committed, "three records wait");
    let half = |offset| SourceEvent::Records(vec![record(FIRST, offset, &"v".repeat(COMMIT_BYTES / 2))]);
    assert!(!bench.step(vec![half(7)]).committed);
    assert!(bench.step(vec![half(8)]).committed, "so many bytes wait");
}

#[test]
fn what_is_too_much_for_one_unit_is_committed_in_several() {
    let mut bench = Bench::open();
    let large = record(FIRST, 0, &"v".repeat(COMMIT_BYTES));
    bench.step(vec![SourceEvent::Records(vec![large]), SourceEvent::Records(vec![record(SECOND, 0, "v")])]);
    let unit = |partition, place| (vec![format!("{partition}@0 knows 0")], vec![(place, 1)]);
    assert_eq!(bench.fake.take_units(), [unit(0, FIRST), unit(1, SECOND)]);
}

#[test]
fn a_poll_waits_only_when_nothing_is_to_be_committed() {
    let mut bench = Bench::open();
    bench.step(vec![records(0..1)]);
    bench.step(Vec::new());
    bench.step(Vec::new());
    let idle = WorkerConfig::default().idle_wait;
    assert_eq!(bench.fake.world().waits, [idle, idle, Duration::ZERO, idle]);
}

#[test]
fn a_partition_begins_where_the_group_stands_or_where_the_log_does() {
    let fake = FakePorts::default();
    let at = |offset| CommittedOffset { offset, metadata: String::new() };
    fake.world().committed.insert(FIRST, at(5));
    fake.world().logs.insert(FIRST, vec![record(FIRST, 6, "v")]);
    fake.world().starts.insert(SECOND, 3);
    let mut bench = Bench::new(&fake, Vec::new());
    bench.step(vec![SourceEvent::Assigned(vec![FIRST, SECOND])]);
    let second = SourceEvent::Records((2..4).map(|offset| record(SECOND, offset, "v")).collect());
    bench.step(vec![records(4..6), second]);
    bench.step(Vec::new());
    let keys = vec!["0@5 knows 0".to_owned(), "1@3 knows 0".to_owned()];
    assert_eq!(bench.fake.take_units(), [(keys, vec![(FIRST, 6), (SECOND, 4)])]);
    // A committed offset at the very end is a place to begin; one beyond it means that the log lost something.
    for (committed, is_fatal) in [(7, false), (8, true)] {
        fake.world().committed.insert(FIRST, at(committed));
        let mut bench = Bench::new(&fake, Vec::new());
        fake.says(vec![SourceEvent::Assigned(vec![FIRST])]);
        assert_eq!(matches!(bench.worker.step(), Err(EngineError::Fatal(_))), is_fatal, "committed {committed}");
    }
}

#[test]
fn state_is_restored_from_what_the_plan_names() {
    let fake = FakePorts::default();
    fake.world().logs.insert(OWN, (4..9).map(|offset| record(OWN, offset, "v")).collect());
    fake.world().logs.insert(FIRST, (0..9).map(|offset| record(FIRST, offset, "v")).collect());
    fake.world().starts.insert(OWN, 5);
    let mut bench = Bench::new(&fake, vec![Restore::Whole(OWN), Restore::Since(FIRST, 7), Restore::Since(OWN, 0)]);
    bench.step(vec![SourceEvent::Assigned(vec![SECOND])]);
    let own = |offset| (OWN.topic, offset);
    let first = |offset| (FIRST.topic, offset);
    let expected = [own(5), own(6), own(7), own(8), first(7), first(8), own(5), own(6), own(7), own(8)];
    assert_eq!(*bench.restored.lock().unwrap(), expected);
}

#[test]
fn globals_are_observed_once_and_before_the_records_that_came_with_them() {
    let fake = FakePorts::default();
    let says = |offset: u64| fake.world().logs.entry(CONTROL).or_default().push(record(CONTROL, offset, "v"));
    says(0);
    let mut bench = Bench::new(&fake, Vec::new());
    assert_eq!(*bench.observed.lock().unwrap(), [0], "read before the first step");
    bench.step(vec![SourceEvent::Assigned(vec![FIRST])]);
    says(1);
    bench.step(vec![records(0..1)]);
    bench.step(Vec::new());
    assert_eq!(bench.fake.take_units()[0].0, ["0@0 knows 2"]);
    // Without records they are looked at twice a second.
    says(2);
    bench.later(499);
    bench.step(Vec::new());
    assert_eq!(*bench.observed.lock().unwrap(), [0, 1]);
    bench.later(1);
    bench.step(Vec::new());
    assert_eq!(*bench.observed.lock().unwrap(), [0, 1, 2]);
}

#[test]
fn what_is_due_is_committed_with_the_place_it_belongs_to() {
    let mut bench = Bench::open();
    bench.step(vec![records(0..1)]);
    bench.step(Vec::new());
    bench.fake.take_units();
    // No offset moved: the committed one goes along, for the fence. The other partition has nothing to say.
    assert!(bench.step(vec![SourceEvent::AtEnd(FIRST)]).committed);
    assert_eq!(bench.fake.take_units(), [(vec!["end".to_owned()], vec![(FIRST, 1)])]);
    bench.step(vec![SourceEvent::AtEnd(SECOND)]);
    assert_eq!(bench.fake.take_units(), [], "neither a record nor an offset");
}

#[test]
fn a_clean_end_commits_what_is_processed() {
    let mut bench = Bench::open();
    bench.step(vec![records(0..1)]);
    let Bench { worker, fake, .. } = bench;
    worker.finish().unwrap();
    assert_eq!(fake.take_units(), [(keys(0..1), vec![(FIRST, 1)])]);
}

#[test]
fn a_revoked_partition_takes_its_outputs_with_it() {
    let mut bench = Bench::open();
    bench.step(vec![records(0..1), SourceEvent::Revoked(vec![FIRST])]);
    bench.step(Vec::new());
    assert_eq!(bench.fake.take_units(), []);
    bench.fake.says(vec![records(1..2)]);
    assert!(matches!(bench.worker.step(), Err(EngineError::Fenced(_))));
}

#[test]
fn what_happens_is_counted() {
    let mut bench = Bench::open();
    bench.step(vec![records(0..1)]);
    bench.step(vec![records(1..2)]);
    bench.step(Vec::new());
    let metrics = &bench.metrics;
    assert_eq!(metrics.records.with_label_values(&["copying"]).get(), 2);
    assert_eq!(metrics.bytes.with_label_values(&["copying"]).get(), 8);
    assert_eq!(metrics.outputs.with_label_values(&["copying"]).get(), 2);
    assert_eq!(metrics.duplicates.with_label_values(&["copying"]).get(), 2);
    assert_eq!(metrics.late.with_label_values(&["copying"]).get(), 4);
    assert_eq!(metrics.dead_letters.with_label_values(&["copying"]).get(), 6);
    assert_eq!(metrics.capped.with_label_values(&["copying"]).get(), 8);
}

#[test]
fn gauges_are_set_every_two_seconds() {
    let mut bench = Bench::open();
    let labels = ["copying", "raw.behavior", "0"];
    let lag = bench.metrics.lag.with_label_values(&labels);
    let entries = bench.metrics.state_entries.with_label_values(&labels);
    bench.fake.world().lag = vec![(FIRST, 7)];
    bench.later(1_999);
    bench.step(vec![records(0..1)]);
    assert_eq!((lag.get(), entries.get()), (0, 0));
    bench.later(1);
    bench.step(Vec::new());
    assert_eq!((lag.get(), entries.get()), (7, 1));
    assert_eq!(bench.metrics.state_bytes.with_label_values(&labels).get(), 10);
    // 5 s behind noon, and 2 s later.
    assert_eq!(bench.metrics.watermark_delay_seconds.with_label_values(&labels).get(), 7);
}

#[test]
fn who_gives_a_partition_away_tells_no_more_of_it() {
    let mut bench = Bench::open();
    bench.fake.world().lag = vec![(FIRST, 7), (SECOND, 5)];
    bench.later(2_000);
    bench.step(Vec::new());
    assert_eq!(bench.metrics.lag_by_processor(), BTreeMap::from([("copying".to_owned(), 12)]));
    bench.step(vec![SourceEvent::Revoked(vec![FIRST])]);
    assert_eq!(bench.metrics.lag_by_processor(), BTreeMap::from([("copying".to_owned(), 5)]));
    // The client may have something to say of it for ever.
    bench.later(2_000);
    bench.step(Vec::new());
    assert_eq!(bench.metrics.lag_by_processor(), BTreeMap::from([("copying".to_owned(), 5)]));
    let told = bench.metrics.state_entries.collect();
    let partitions = told.iter().flat_map(|family| family.get_metric()).map(|metric| metric.get_label()[0].value());
    assert_eq!(partitions.collect::<Vec<_>>(), ["1"]);
    let metrics = bench.metrics.clone();
    drop(bench);
    assert_eq!(metrics.lag_by_processor(), BTreeMap::new(), "nor does one that has ended");
}

#[test]
fn the_state_of_all_partitions_is_added_up() {
    let mut bench = Bench::open();
    let second = SourceEvent::Records(vec![record(SECOND, 0, "v")]);
    bench.step(vec![records(0..2), second]);
    assert_eq!(bench.worker.state_size(), (3, 30));
}

#[test]
fn nothing_is_committed_when_the_stage_cannot_go_on() {
    let mut bench = Bench::open();
    bench.fake.says(vec![records(0..1), SourceEvent::Records(vec![record(FIRST, 1, "hopeless")])]);
    assert!(matches!(bench.worker.step(), Err(EngineError::Fatal(_))));
    assert_eq!(bench.fake.take_units(), []);
}
