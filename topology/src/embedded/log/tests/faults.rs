use std::sync::Arc;

use bytes::Bytes;
use neonhub_schemas::record::CommittedOffset;
use neonhub_schemas::topics::Topic;
use parking_lot::{Mutex, MutexGuard};

use super::super::{
    Batch, CommitMode, CommitUnit, Durability, Log, LogError, LogOptions, MemoryStore, Space, Store, StoreError,
    Visitor,
};
use super::{on_both, place, read_all, record, summary};

const OUT: neonhub_schemas::record::TopicPartition = place(Topic::EventsBehavior, 0);
const OTHER: neonhub_schemas::record::TopicPartition = place(Topic::Control, 0);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Full,
    /// The write fails and nothing is there.
    LostWrite,
    /// The write fails, but it is there: an fsync that reported an error too late.
    LateFailure,
}

/// A store whose synced writes fail on demand, and wait while the gate is held.
struct FaultyStore {
    inner: MemoryStore,
    fault: Mutex<Fault>,
    gate: Mutex<()>,
}

impl FaultyStore {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(), fault: Mutex::new(Fault::None), gate: Mutex::new(()) })
    }

    fn hold_writes(&self) -> MutexGuard<'_, ()> {
        self.gate.lock()
    }
}

impl Store for FaultyStore {
    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        drop(self.gate.lock());
        match *self.fault.lock() {
            Fault::Full => Err(StoreError::Full { free_bytes: 5 }),
            Fault::LostWrite => Err(StoreError::WriteFailed("gone".into())),
            Fault::LateFailure => {
                self.inner.write(batch, durability)?;
                Err(StoreError::WriteFailed("late".into()))
            }
            Fault::None => self.inner.write(batch, durability),
        }
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(space, key)
    }

    fn scan(&self, space: Space, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.inner.scan(space, from, until, visit)
    }

    fn first_key(&self, space: Space) -> Result<Option<Bytes>, StoreError> {
        self.inner.first_key(space)
    }

    fn last_key(&self, space: Space) -> Result<Option<Bytes>, StoreError> {
        self.inner.last_key(space)
    }
}

fn unit(key: &str) -> CommitUnit {
    CommitUnit {
        records: vec![record(OUT, key, "1", 1), record(OTHER, key, "1", 1)],
        offsets: vec![(OTHER, CommittedOffset { offset: 1, metadata: key.into() })],
        group: "g".into(),
        fence: None,
    }
}

fn ends(log: &Log) -> (u64, u64) {
    (log.end_offset(OUT).unwrap(), log.end_offset(OTHER).unwrap())
}

#[test]
fn a_full_disk_refuses_the_commit_and_nothing_else() {
    let store = FaultyStore::new();
    let log = Log::over(store.clone(), LogOptions::for_testing(), CommitMode::Inline).unwrap();
    log.commit(unit("before")).unwrap();
    *store.fault.lock() = Fault::Full;
    assert_eq!(log.commit(unit("during")), Err(LogError::DiskFull { free_bytes: 5 }));
    assert_eq!(ends(&log), (1, 1));
    *store.fault.lock() = Fault::None;
    log.commit(unit("after")).unwrap();
    assert_eq!(summary(&read_all(&log, OUT, 0))[1].1, "after");
}

#[test]
fn a_disk_below_its_reserve_is_noticed_before_writing() {
    let folder = tempfile::tempdir().unwrap();
    let options = LogOptions { disk_reserve_bytes: u64::MAX / 2, ..LogOptions::for_testing() };
    let log = Log::open(folder.path(), options).unwrap();
    assert!(matches!(log.commit(unit("a")), Err(LogError::DiskFull { .. })));
    assert_eq!(ends(&log), (0, 0));
}

#[test]
fn a_failed_write_stops_all_writing_until_reopened_and_is_whole_or_absent_then() {
    for (fault, expected_end) in [(Fault::LostWrite, 1), (Fault::LateFailure, 2)] {
        let store = FaultyStore::new();
        let log = Log::over(store.clone(), LogOptions::for_testing(), CommitMode::Grouped).unwrap();
        log.commit(unit("before")).unwrap();
        *store.fault.lock() = fault;
        assert!(matches!(log.commit(unit("during")), Err(LogError::ReopenNeeded { .. })));
        *store.fault.lock() = Fault::None;
        assert!(matches!(log.commit(unit("after")), Err(LogError::ReopenNeeded { .. })), "still refused");
        assert_eq!(ends(&log), (1, 1), "not shown");
        assert_eq!(read_all(&log, OUT, 0).len(), 1, "reading goes on");
        drop(log);
        let log = Log::over(store, LogOptions::for_testing(), CommitMode::Inline).unwrap();
        assert_eq!(ends(&log), (expected_end, expected_end));
        log.commit(unit("anew")).unwrap();
        assert_eq!(ends(&log), (expected_end + 1, expected_end + 1));
    }
}

#[test]
fn a_full_queue_refuses_tasks_and_makes_threads_wait() {
    let store = FaultyStore::new();
    let options = LogOptions { queue_bytes: 1_000, unit_bytes: 2_000, ..LogOptions::for_testing() };
    let log = Log::over(store.clone(), options, CommitMode::Grouped).unwrap();
    let of_bytes = |bytes: usize| CommitUnit::of_records(vec![record(OUT, "k", &"v".repeat(bytes), 1)]);
    let large = || of_bytes(600);
    assert!(matches!(log.commit(of_bytes(3_000)), Err(LogError::TooLarge { .. })));
    log.commit(of_bytes(1_500)).expect("larger than the queue, and alone in it");
    let gate = store.hold_writes();
    let mut queued = Vec::new();
    let refused = loop {
        let mut answer = log.submit(large());
        match answer.try_recv() {
            Ok(outcome) => break outcome,
            Err(_) => queued.push(answer),
        }
    };
    assert_eq!(refused, Err(LogError::QueueFull));
    assert!(queued.len() <= 2, "one is being written, one waits");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| log.commit(large()));
        assert_eq!(log.end_offset(OUT).unwrap(), 1, "nothing is shown before it is durable");
        drop(gate);
        waiting.join().unwrap().unwrap();
    });
    let count = queued.len() as u64;
    for answer in queued {
        answer.blocking_recv().unwrap().unwrap();
    }
    assert_eq!(log.end_offset(OUT).unwrap(), count + 2);
}

#[test]
fn a_damaged_record_is_reported_and_never_handed_out() {
    on_both(|home, log| {
        log.append((0..3).map(|key| record(OUT, &key.to_string(), "value", key)).collect()).unwrap();
        drop(log);
        let store = home.store();
        let key = 1_u64.to_be_bytes();
        let mut value = store.get(Space::Records(OUT), &key).unwrap().unwrap().to_vec();
        let last = value.len() - 1;
        value[last] ^= 1;
        let mut batch = Batch::default();
        batch.put(Space::Records(OUT), Bytes::copy_from_slice(&key), value.into());
        store.write(batch, Durability::Synced).unwrap();
        drop(store);

        let log = home.open(LogOptions::for_testing());
        let fetched = log.read(OUT, 0, 10, 1 << 20).unwrap();
        assert_eq!((fetched.records.len(), fetched.next_offset), (1, 1), "the good ones before it");
        assert_eq!(
            log.read(OUT, 1, 10, 1 << 20),
            Err(LogError::Damaged { topic_partition: OUT, offset: 1, detail: "checksum mismatch" })
        );
        assert_eq!(read_all(&log, OUT, 2).len(), 1);
        assert_eq!(log.offset_for_time(OUT, 1).unwrap(), Some(2));
    });
}
